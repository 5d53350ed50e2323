/** The live tail: what happens now on a filter, paused at will. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { call, reason } from "../frame/api.ts";
import { clock, count, many } from "../frame/format.ts";
import { type Event, subscribe } from "../frame/live.ts";
import { Badge, Empty, Failure } from "../frame/parts.ts";
import { token, who } from "../frame/session.ts";

/** Rows that are kept; what is older is forgotten here, and stays in the log. */
const KEPT = 200;
/** How often the list is drawn, however many events come, in ms. */
const DRAWN = 250;

const filter = signal("");
/** The filter as it is being typed: a list that is drawn anew must not take it back. */
const draft = signal("");
const known = signal<string[]>([]);
const shown = signal<readonly Event[]>([]);
const seen = signal(0);
const rate = signal(0);
const paused = signal(false);
const failed = signal("");
const words = signal("");

interface AsyncApi {
  channels: Record<string, { "x-topic-gateway-filter": string }>;
  operations: Record<string, { action: string; channel: { $ref: string }; "x-topic-gateway-grants"?: string[] }>;
}

/** The filters that this token may subscribe to, as the gateway's own document tells them: operators see all of it. */
async function readable(): Promise<string[]> {
  const document = await call<AsyncApi>("GET", "asyncapi.json");
  const kind = who(token.value)?.kind ?? "";
  const may = (grants: string[] = []) => grants.some((one) => one === "anyone" || one.split(":")[0] === kind);
  const sent = Object.values(document.operations).filter(
    (one) => one.action === "send" && may(one["x-topic-gateway-grants"]),
  );
  const ids = new Set(sent.map((one) => one.channel.$ref.split("/").pop()!.replaceAll("~1", "/").replaceAll("~0", "~")));
  return [...ids].flatMap((id) => document.channels[id]?.["x-topic-gateway-filter"] ?? []).sort();
}

function useTail(): void {
  useEffect(() => {
    readable().then(
      (found) => {
        known.value = found;
        filter.value ||= found[0] ?? "";
        draft.value ||= filter.value;
      },
      (error: unknown) => (failed.value = reason(error)),
    );
  }, []);
  useEffect(() => {
    if (!filter.value) return;
    let waiting: Event[] = [];
    let before = 0;
    failed.value = "";
    shown.value = [];
    seen.value = 0;
    const stop = subscribe(
      filter.value,
      (event) => {
        seen.value++;
        if (paused.value) return;
        waiting.push(event);
        if (waiting.length > KEPT) waiting = waiting.slice(-KEPT);
      },
      (why) => (failed.value = why),
    );
    const draw = setInterval(() => {
      if (!waiting.length) return;
      shown.value = [...waiting.reverse(), ...shown.value].slice(0, KEPT);
      waiting = [];
    }, DRAWN);
    const measure = setInterval(() => {
      rate.value = seen.value - before;
      before = seen.value;
    }, 1000);
    return () => {
      stop();
      clearInterval(draw);
      clearInterval(measure);
    };
  }, [filter.value]);
}

const text = (data: unknown): string => (typeof data === "string" ? data : JSON.stringify(data));

export function Tail() {
  useTail();
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    filter.value = draft.value.trim();
  };
  const sought = words.value.toLowerCase();
  const rows = shown.value.filter((one) => !sought || `${one.topic} ${text(one.data)}`.toLowerCase().includes(sought));
  return html`<section aria-labelledby="live">
    <div class="heading">
      <h2 id="live">Live</h2>
      <${Badge} tone=${paused.value ? "warn" : "plain"}>${paused.value ? "paused" : `${count(rate.value)} a second`}<//>
      <span class="hint">${many(seen.value, "event")} since you came</span>
    </div>
    <form class="filter" aria-label="What to watch" onSubmit=${send}>
      <label>Topic filter <input name="filter" list="known" value=${draft.value} required spellcheck="false"
        onInput=${(event: InputEvent) => {
          draft.value = (event.target as HTMLInputElement).value;
        }} /></label>
      <datalist id="known">${known.value.map((one) => html`<option value=${one} />`)}</datalist>
      <button type="submit">Watch</button>
      <label>Containing <input type="search" value=${words.value} onInput=${(event: InputEvent) => {
        words.value = (event.target as HTMLInputElement).value;
      }} /></label>
      <button class="quiet" type="button" aria-pressed=${paused.value} onClick=${() => {
        paused.value = !paused.value;
        announce(paused.value ? "paused" : "goes on");
      }}>${paused.value ? "Go on" : "Pause"}</button>
    </form>
    <${Failure} text=${failed.value} />
    ${rows.length === 0 && !failed.value && html`<${Empty}>${filter.value ? html`Waiting for events on <code>${filter.value}</code> …` : "Choose a filter."}<//>`}
    <ol class="tail" aria-label="Events, the newest first" tabindex="0">
      ${rows.map(
        (one) => html`<li key=${one.nth}>
          <time>${clock(one.came)}</time> <code class="topic">${one.topic}</code> <code class="data">${text(one.data)}</code>
        </li>`,
      )}
    </ol>
  </section>`;
}
