/** Services: how far each is behind, and a word to let one rest. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { reason } from "../frame/api.ts";
import { count } from "../frame/format.ts";
import { Badge, Empty, Failure, Table } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";
import { type Service, services as ask, turn } from "../frame/services.ts";
import { Health } from "./health.ts";

function standing({ paused, held, lag, parked }: Service) {
  if (paused) return html`<${Badge} tone="warn">paused<//>`;
  if (held === 0) return html`<${Badge} tone="bad">no worker<//>`;
  if (parked > 0) return html`<${Badge} tone="warn">retrying<//>`;
  return html`<${Badge} tone="good">${lag ? "working" : "idle"}<//>`;
}

const failed = signal("");

export function Services() {
  const { value, error, again } = usePoll(ask, 2000);
  const services = value.value;
  const change = async (one: Service) => {
    try {
      failed.value = "";
      await turn(one);
      await again();
    } catch (wrong) {
      failed.value = reason(wrong);
    }
  };
  return html`<section aria-labelledby="services">
      <div class="heading"><h2 id="services">Services</h2></div>
      <${Failure} text=${failed.value || error.value} />
      ${services?.length === 0 &&
      html`<${Empty}>No service has begun. Start one with <code>gateway work APP.SERVICE</code>.<//>`}
      ${services !== undefined &&
      services.length > 0 &&
      html`<${Table}
        caption="Services and how far each is"
        rows=${services}
        id=${(one: Service) => one.group}
        columns=${[
          { head: "Service", cell: (one: Service) => html`<code>${one.group}</code>` },
          { head: "State", cell: standing },
          { head: "Behind", number: true, cell: (one: Service) => count(one.lag) },
          { head: "Retrying", number: true, cell: (one: Service) => count(one.parked) },
          { head: "Workers", number: true, cell: (one: Service) => one.workers },
          { head: "Partitions held", number: true, cell: (one: Service) => `${one.held} of ${one.partitions.length}` },
          {
            head: "Change",
            cell: (one: Service) =>
              html`<button class="quiet" type="button" onClick=${() => change(one)}>
                ${one.paused ? "Resume" : "Pause"}<span class="unseen"> ${one.group}</span>
              </button>`,
          },
        ]}
      />`}
    </section>
    <${Health} />`;
}
