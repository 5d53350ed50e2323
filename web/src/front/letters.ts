/** The dead letters: the oldest that lies there, and the way to all of them. */
import { html } from "htm/preact";
import { call } from "../frame/api.ts";
import { Failure } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";
import { root } from "../frame/root.ts";

const EVERY = 5_000;

interface Letter {
  group: string;
  topic: string;
  error: string;
}

const look = async () => (await call<{ letters: Letter[] }>("GET", "dead?limit=1")).letters;

function Oldest({ of }: { of: Letter }) {
  const by = of.group ? html`given up by <code>${of.group}</code>` : "refused at the door";
  return html`<p class="letter"><code>${of.topic}</code> was ${by}: ${of.error}.
    ${of.error.endsWith("no number") && " Its gauge is broken: put a number in the place of null."}</p>`;
}

export function Letters() {
  const { value, error } = usePoll(look, EVERY);
  const oldest = value.value?.[0];
  return html`<${Failure} text=${error.value} />
    ${oldest && html`<${Oldest} of=${oldest} />`}
    ${value.value && !oldest && html`<p class="hint">None lies there now: whatever came was handled.</p>`}
    <p class="actions"><a class="go" href=${new URL("console/#letters", root).href}>Open the dead letters</a></p>`;
}
