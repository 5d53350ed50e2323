/** Dead letters: found, read, mended, given back to their service, or dropped. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { call, lines, reason } from "../frame/api.ts";
import { clock, many, size } from "../frame/format.ts";
import { Badge, Empty, Failure, Table, Time } from "../frame/parts.ts";
import { Letter } from "./letter.ts";

export interface Row {
  address: string;
  group: string;
  reason: string;
  error: string;
  topic: string;
  id: string;
  attempts: number;
  when: number;
  size: number;
}

interface Step {
  done: number;
  left_out: number;
  why?: string;
  end?: "done" | "failed";
  problem?: { detail: string };
}

const PAGE = 50;
const rows = signal<Row[] | undefined>(undefined);
const next = signal<string | null>(null);
const chosen = signal<ReadonlySet<string>>(new Set());
const open = signal<string | undefined>(undefined);
const failed = signal("");
const outcome = signal("");
const busy = signal(false);
const query = signal({ group: "", reason: "", topic: "" });

async function load(more = false): Promise<void> {
  const wanted = new URLSearchParams({ limit: String(PAGE) });
  for (const [name, value] of Object.entries(query.value)) if (value) wanted.set(name, value);
  if (more && next.value) wanted.set("after", next.value);
  try {
    const page = await call<{ letters: Row[]; next: string | null }>("GET", `dead?${wanted}`);
    rows.value = more ? [...(rows.value ?? []), ...page.letters] : page.letters;
    next.value = page.next;
    const there = new Set(rows.value.map((one) => one.address));
    chosen.value = new Set([...chosen.value].filter((one) => there.has(one)));
    failed.value = "";
  } catch (error) {
    failed.value = reason(error);
  }
}

/** Replay or drop, showing how far it is; the last line says how it ended. */
async function change(verb: "replay" | "drop", letters: string[]): Promise<void> {
  busy.value = true;
  failed.value = outcome.value = "";
  const does = verb === "replay" ? "replayed" : "dropped";
  try {
    let last: Step | undefined;
    for await (const step of lines<Step>("POST", `dead/${verb}`, { letters })) {
      last = step;
      outcome.value = `${does} ${step.done} of ${letters.length} …`;
    }
    if (last?.end === undefined) throw new Error("the answer was cut: look at what is left");
    if (last.end === "failed") throw new Error(last.problem?.detail ?? "it ended early");
    const left = last.left_out ? `, ${last.left_out} left out: ${last.why}` : "";
    outcome.value = `${many(last.done, "letter")} ${does}${left}`;
    announce(outcome.value);
  } catch (error) {
    outcome.value = "";
    failed.value = reason(error);
  } finally {
    busy.value = false;
    await load();
  }
}

function choose(address: string, on: boolean): void {
  const now = new Set(chosen.value);
  if (on) now.add(address);
  else now.delete(address);
  chosen.value = now;
}

function drop(letters: string[]): void {
  if (confirm(`Drop ${many(letters.length, "dead letter")} for good? This cannot be undone.`)) void change("drop", letters);
}

function Filter() {
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.target as HTMLFormElement);
    const field = (name: string) => String(given.get(name) ?? "").trim();
    query.value = { group: field("group"), reason: field("reason"), topic: field("topic") };
    void load();
  };
  return html`<form class="filter" role="search" aria-label="Dead letters" onSubmit=${send}>
    <label>Service <input name="group" placeholder="e.g. shop.stock" /></label>
    <label>Reason <input name="reason" placeholder="e.g. rejected" /></label>
    <label>Topic filter <input name="topic" placeholder="e.g. shop/#" /></label>
    <button type="submit">Find</button>
  </form>`;
}

export function Letters() {
  useEffect(() => void load(), []);
  const found = rows.value;
  const all = found !== undefined && found.length > 0 && chosen.value.size === found.length;
  const picked = [...chosen.value];
  return html`<section aria-labelledby="letters">
    <div class="heading"><h2 id="letters">Dead letters</h2></div>
    <${Filter} />
    <${Failure} text=${failed.value} />
    ${outcome.value && html`<p class="notice good">${outcome}</p>`}
    ${found?.length === 0 && html`<${Empty}>${next.value ? "None on this page." : "No dead letter: whatever came was handled."}<//>`}
    ${found !== undefined &&
    found.length > 0 &&
    html`<div class="actions" role="group" aria-label="What to do with the letters that are ticked">
        <label class="tick"><input type="checkbox" checked=${all} onChange=${(event: Event) => {
          chosen.value = new Set((event.target as HTMLInputElement).checked ? found.map((one) => one.address) : []);
        }} /> all</label>
        <button type="button" disabled=${busy.value || !picked.length} onClick=${() => change("replay", picked)}>
          Replay ${picked.length || ""}
        </button>
        <button class="danger" type="button" disabled=${busy.value || !picked.length} onClick=${() => drop(picked)}>
          Drop ${picked.length || ""}
        </button>
      </div>
      <${Table}
        caption="Dead letters, the oldest first"
        rows=${found}
        id=${(one: Row) => one.address}
        columns=${[
          {
            head: "Choose",
            cell: (one: Row) => html`<label class="tick"><input
                type="checkbox"
                aria-label=${`choose ${one.topic} ${one.address}`}
                checked=${chosen.value.has(one.address)}
                onChange=${(event: Event) => choose(one.address, (event.target as HTMLInputElement).checked)}
              /></label>`,
          },
          { head: "When", cell: (one: Row) => html`<${Time} at=${one.when} as=${clock} />` },
          { head: "Service", cell: (one: Row) => (one.group ? html`<code>${one.group}</code>` : "at the door") },
          { head: "Reason", cell: (one: Row) => html`<${Badge} tone="bad">${one.reason}<//>` },
          { head: "Topic", cell: (one: Row) => html`<code>${one.topic}</code>` },
          { head: "Error", cell: (one: Row) => html`<span class="clip" title=${one.error}>${one.error}</span>` },
          { head: "Size", number: true, cell: (one: Row) => size(one.size) },
          {
            head: "Open",
            cell: (one: Row) =>
              html`<button class="quiet" type="button" onClick=${() => (open.value = one.address)}>
                Show<span class="unseen"> ${one.address}</span>
              </button>`,
          },
        ]}
      />`}
    ${next.value && html`<p><button class="quiet" type="button" onClick=${() => load(true)}>Show more</button></p>`}
    ${open.value &&
    html`<${Letter}
      address=${open.value}
      close=${() => (open.value = undefined)}
      replayed=${(said: string) => {
        open.value = undefined;
        outcome.value = said;
        announce(said);
        void load();
      }}
    />`}
  </section>`;
}
