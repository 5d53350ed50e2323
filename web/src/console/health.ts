/** Whether the gateway is well: its edges, and what this one says of itself. */
import { html } from "htm/preact";
import { call, root } from "../frame/api.ts";
import { count, span } from "../frame/format.ts";
import { Badge, Failure, Table } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";

interface Node {
  uid: string;
  name: string;
  version: string;
  num_clients: number;
  num_users: number;
  num_subs: number;
  num_channels: number;
  uptime: number;
}

async function look() {
  const [ready, info] = await Promise.all([
    fetch(new URL("readyz", root)),
    call<{ result?: { nodes: Node[] }; error?: { message: string } }>("POST", "api/info", {}),
  ]);
  if (info.result === undefined) throw new Error(info.error?.message ?? "no answer");
  return { ready: ready.ok, why: (await ready.text()).trim(), nodes: info.result.nodes };
}

export function Health() {
  const { value, error } = usePoll(look, 3000);
  const seen = value.value;
  return html`<section aria-labelledby="health">
    <div class="heading">
      <h2 id="health">Edges</h2>
      ${seen && html`<${Badge} tone=${seen.ready ? "good" : "bad"}>${seen.ready ? "ready" : seen.why}<//>`}
    </div>
    <${Failure} text=${error.value} />
    ${seen &&
    html`<${Table}
      caption="Edges that live"
      rows=${seen.nodes}
      id=${(one: Node) => one.uid}
      columns=${[
        { head: "Edge", cell: (one: Node) => html`<code>${one.name}</code>` },
        { head: "Clients", number: true, cell: (one: Node) => count(one.num_clients) },
        { head: "Users", number: true, cell: (one: Node) => one.num_users },
        { head: "Subscriptions", number: true, cell: (one: Node) => one.num_subs },
        { head: "Filters", number: true, cell: (one: Node) => one.num_channels },
        { head: "Up", number: true, cell: (one: Node) => span(one.uptime) },
        { head: "Version", cell: (one: Node) => one.version },
      ]}
    />`}
  </section>`;
}
