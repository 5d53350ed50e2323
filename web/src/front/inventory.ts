/** The inventory service of the shop: how it stands, and the button that stops or starts it. */
import { useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { reason } from "../frame/api.ts";
import { many } from "../frame/format.ts";
import { Badge, Failure } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";
import { type Service, services, turn } from "../frame/services.ts";

const GROUP = "ecommerce.inventory";
const EVERY = 2_000;

function Standing({ of }: { of: Service }) {
  if (of.paused && of.held) return html`<${Badge} tone="warn">stopping<//>`;
  if (of.paused) return html`<${Badge} tone="warn">stopped${of.lag > 0 && `, ${many(of.lag, "event")} behind`}<//>`;
  if (!of.held) return html`<${Badge} tone="bad">no process of it is there<//>`;
  return html`<${Badge} tone="good">${of.lag + of.parked > 0 ? "catching up" : "runs"}<//>`;
}

export function Inventory() {
  const { value, error, again } = usePoll(services, EVERY);
  const failed = useSignal("");
  const one = value.value?.find(({ group }) => group === GROUP);
  const change = async () => {
    if (one === undefined) return;
    failed.value = "";
    try {
      await turn(one);
      await again();
    } catch (wrong) {
      failed.value = reason(wrong);
    }
  };
  return html`<${Failure} text=${failed.value || error.value} />
    ${value.value && !one && html`<p class="hint"><code>${GROUP}</code> has not begun yet.</p>`}
    ${one &&
    html`<p class="actions">
        <button type="button" onClick=${change}>${one.paused ? "Start it again" : "Stop it"}</button>
        <span><code>${GROUP}</code> <${Standing} of=${one} /></span>
      </p>
      <p class="hint">Stopped, it takes no events: its group is paused, as the console can any. Its process lives, and answers who asks.</p>`}`;
}
