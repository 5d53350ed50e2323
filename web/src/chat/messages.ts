/** What was said in a room, as people read it: by day and by author, and what is still being sent below. */
import { html } from "htm/preact";
import { useSignal } from "@preact/signals";
import { reason } from "../frame/api.ts";
import { date } from "../frame/format.ts";
import { me } from "../frame/session.ts";
import type { Mending } from "./composer.ts";
import type { Opened } from "./opened.ts";
import { again, command, forget, newId, type Sending } from "./outbox.ts";
import type { Entry } from "./routes.ts";

/** Messages of one author within this time, in ms, stand together. */
const TOGETHER = 5 * 60_000;
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

interface Of {
  opened: Opened;
  sending: Sending[];
  mend: (one: Mending) => void;
}

export function Messages({ opened, sending, mend }: Of & { turn: number }) {
  const shown = opened.timeline.entries.filter((one) => one.kind !== "edited" && one.kind !== "deleted");
  const mine = me.value?.name;
  const readThen = opened.readThen.value;
  const fresh = shown.find((one) => readThen !== undefined && one.seq > readThen && one.kind === "message" && one.author !== mine);
  let before: Entry | undefined;
  return html`<ol class="messages">
    ${shown.flatMap((entry) => {
      const last = before;
      before = entry;
      const dawn = last === undefined || day.format(last.at) !== day.format(entry.at);
      const goesOn = !dawn && entry !== fresh && last?.kind === "message" && last.author === entry.author && entry.at - last.at < TOGETHER;
      return [
        dawn && html`<li class="rule" key=${`day ${entry.seq}`}>${day.format(entry.at)}</li>`,
        entry === fresh && html`<li class="rule fresh" key="new">New</li>`,
        entry.kind === "message"
          ? html`<${Message} key=${entry.seq} entry=${entry} opened=${opened} goesOn=${goesOn} own=${entry.author === mine} mend=${mend} />`
          : html`<li class="event" key=${entry.seq}>${happened(entry, opened)}</li>`,
      ];
    })}
    ${sending.map((one) => html`<${OnItsWay} key=${one.id} one=${one} />`)}
  </ol>`;
}

function happened({ kind, author, member = "" }: Entry, opened: Opened): string {
  const [who, by] = [opened.nameOf(member), opened.nameOf(author)];
  if (kind === "joined") return member === author ? `${who} joined` : `${by} let ${who} in`;
  return member === author ? `${who} left` : `${by} sent ${who} out`;
}

interface One {
  entry: Entry;
  opened: Opened;
  goesOn: boolean;
  own: boolean;
  mend: (one: Mending) => void;
}

function Message({ entry, opened, goesOn, own, mend }: One) {
  const failed = useSignal("");
  const name = opened.nameOf(entry.author);
  const remove = async () => {
    if (!confirm("Delete this message for everybody?")) return;
    failed.value = "";
    try {
      await command(opened.id, "delete", { id: newId(), seq: entry.seq });
    } catch (error) {
      failed.value = reason(error);
    }
  };
  const text = entry.deleted ? html`<em>deleted</em>` : entry.text;
  // A tap is a focus: it brings the tools, where no pointer does.
  return html`<li class=${`message${own ? " own" : ""}${goesOn ? " goes-on" : ""}`} tabindex=${own ? "-1" : null}>
    <p class=${goesOn ? "by unseen" : "by"}><strong title=${entry.author}>${own ? "You" : name}</strong>
      <time datetime=${new Date(entry.at).toISOString()} title=${date(entry.at)}>${hour.format(entry.at)}</time></p>
    <div class="bubble">
      <p class="text">${text}${entry.edited && !entry.deleted ? html` <span class="edited">edited</span>` : null}</p>
      ${own && !entry.deleted && html`<span class="tools">
        <button class="quiet" type="button" onClick=${() => mend({ seq: entry.seq, text: entry.text ?? "" })}>Edit<span class="unseen"> “${entry.text}”</span></button>
        <button class="quiet" type="button" onClick=${remove}>Delete<span class="unseen"> “${entry.text}”</span></button></span>`}
    </div>
    ${failed.value && html`<p class="why" role="alert">${failed.value}</p>`}
  </li>`;
}

function OnItsWay({ one }: { one: Sending }) {
  return html`<li class=${`message own goes-on ${one.state}`}>
    <div class="bubble"><p class="text">${one.text}</p></div>
    <p class="why" role=${one.state === "failed" ? "alert" : null}>${one.state === "failed" ? `Not sent: ${one.why}` : one.state === "sent" ? "sent" : "sending …"}
      ${one.state === "failed" &&
      html` <button class="quiet" type="button" onClick=${() => again(one.id)}>Try again</button>
        <button class="quiet" type="button" onClick=${() => forget(new Set([one.id]))}>Discard</button>`}</p>
  </li>`;
}
