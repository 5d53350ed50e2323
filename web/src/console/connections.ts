/** Who is connected, on every edge: the slow ones first, and a word to send one away. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { announce } from "../frame/announce.ts";
import { call, reason } from "../frame/api.ts";
import { clock, count, many, size } from "../frame/format.ts";
import { Empty, Failure, Table, Time } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";

interface Connection {
  client: string;
  user: string;
  edge: string;
  transport: "websocket" | "sse";
  codec: string;
  sdk: string;
  since: number;
  subscriptions: number;
  filters: string[];
  waiting: number;
  round_trip: number | null;
}

interface Connected {
  connections: Connection[];
  left_out: number;
  edges: string[];
  missing: string[];
}

const query = signal({ user: "", topic: "", slow: "" });
const failed = signal("");

function look(): Promise<Connected> {
  const wanted = new URLSearchParams();
  for (const [name, value] of Object.entries(query.value)) if (value) wanted.set(name, value);
  return call<Connected>("GET", `connections?${wanted}`);
}

/** As the server API names people: users by their own name, others by their kind too, nobody by nothing. */
function named(user: string): string {
  if (user === "anonymous") return "";
  const own = user.replace(/^user:/, "");
  return own.includes(":") ? user : own;
}

async function send({ client, user }: Connection, again: () => Promise<void>): Promise<void> {
  if (!confirm(`Close this connection of ${user}? Its SDK does not come back by itself.`)) return;
  try {
    failed.value = "";
    const told = await call<{ error?: { message: string } }>("POST", "api/disconnect", { user: named(user), client });
    if (told.error) throw new Error(told.error.message);
    announce(`a connection of ${user} is closed`);
    await again();
  } catch (wrong) {
    failed.value = reason(wrong);
  }
}

function Filter({ again }: { again: () => Promise<void> }) {
  const find = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.target as HTMLFormElement);
    const field = (name: string) => String(given.get(name) ?? "").trim();
    query.value = { user: field("user"), topic: field("topic"), slow: field("slow") };
    void again();
  };
  return html`<form class="filter" role="search" aria-label="Connections" onSubmit=${find}>
    <label>User <input name="user" placeholder="e.g. alice, device:7" /></label>
    <label>Topic that they hear <input name="topic" placeholder="e.g. rooms/1/messages" /></label>
    <label class="tick"><input type="checkbox" name="slow" value="true" /> slow ones only</label>
    <button type="submit">Find</button>
  </form>`;
}

export function Connections() {
  const { value, error, again } = usePoll(look, 5000);
  const found = value.value;
  const rows = found?.connections ?? [];
  return html`<section aria-labelledby="connections">
    <div class="heading"><h2 id="connections">Connections</h2></div>
    <${Filter} again=${again} />
    <${Failure} text=${failed.value || error.value} />
    ${found !== undefined &&
    found.missing.length > 0 &&
    html`<p class="notice warn">Nothing was heard in time of ${found.missing.join(", ")}: theirs are not here.</p>`}
    ${found !== undefined && rows.length === 0 && html`<${Empty}>Nobody is connected of whom you asked.<//>`}
    ${rows.length > 0 &&
    html`<${Table}
      caption="Connections: most bytes waiting first, then the oldest"
      rows=${rows}
      id=${(one: Connection) => one.client}
      columns=${[
        { head: "User", cell: (one: Connection) => html`<code>${one.user}</code>` },
        { head: "Since", cell: (one: Connection) => html`<${Time} at=${one.since} as=${clock} />` },
        { head: "By", cell: (one: Connection) => one.sdk || `${one.transport}, ${one.codec}` },
        {
          head: "Subscriptions",
          number: true,
          cell: (one: Connection) => html`<span title=${one.filters.join("\n")}>${count(one.subscriptions)}</span>`,
        },
        { head: "Waiting", number: true, cell: (one: Connection) => size(one.waiting) },
        {
          head: "Round trip",
          number: true,
          cell: (one: Connection) => (one.round_trip === null ? "–" : `${Math.round(one.round_trip)} ms`),
        },
        { head: "Edge", cell: (one: Connection) => html`<code>${one.edge}</code>` },
        {
          head: "Change",
          cell: (one: Connection) =>
            html`<button class="quiet" type="button" onClick=${() => send(one, again)}>
              Close<span class="unseen"> the connection ${one.client} of ${one.user}</span>
            </button>`,
        },
      ]}
    />`}
    ${found !== undefined && found.left_out > 0 && html`<p>${many(found.left_out, "more connection")} left out.</p>`}
  </section>`;
}
