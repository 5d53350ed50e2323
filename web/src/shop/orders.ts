/** One's own orders, the newest first, each as it stands now. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useMemo } from "preact/hooks";
import { call, reason } from "../frame/api.ts";
import { date } from "../frame/format.ts";
import { rest } from "../frame/layout.ts";
import { subscribe } from "../frame/live.ts";
import { Badge, Empty, Failure, Table } from "../frame/parts.ts";
import { me, person } from "../frame/session.ts";
import { titled, useCatalog } from "./catalog.ts";
import { money } from "./money.ts";
import { OneOrder } from "./order.ts";
import { type Order, type Told, word } from "./standing.ts";

const LIMIT = 10;
const orders = signal<Order[] | undefined>(undefined);
const next = signal<string | null>(null);
const failed = signal("");

async function load(more = false): Promise<void> {
  const by = person.value;
  const wanted = new URLSearchParams({ limit: String(LIMIT), after: (more && next.value) || "" });
  try {
    const page = await call<{ items: Order[]; next: string | null }>("GET", `ecommerce/orders/?${wanted}`);
    orders.value = more ? [...(orders.value ?? []), ...page.items] : page.items;
    next.value = page.next;
    failed.value = "";
  } catch (error) {
    if (person.value === by) failed.value = reason(error);
  }
}

/** An event of an order that is shown moves it on; one that is not shown was placed in another tab, or is older. */
function hear(topic: string, { order: status, payment, fulfilment, detail }: Told, at: number): void {
  const id = topic.split("/")[2];
  orders.value = orders.value?.map((one) =>
    one.order === id && at >= one.changed ? { ...one, status, payment, fulfilment, detail, changed: at } : one,
  );
}

function List() {
  useCatalog();
  // Before anything is drawn: they may be of who was here before.
  useMemo(() => {
    orders.value = undefined;
    next.value = null;
    failed.value = "";
  }, []);
  useEffect(
    () =>
      subscribe(
        `ecommerce/orders/+/status/${me.value?.name}`,
        ({ topic, data, at }) => hear(topic, data as Told, at),
        (why) => (why ? (failed.value = why) : void load()),
      ),
    [],
  );
  const found = orders.value;
  return html`<section aria-labelledby="orders">
    <div class="heading"><h2 id="orders">Your orders</h2></div>
    <${Failure} text=${failed.value} />
    ${found?.length === 0 && html`<${Empty}>You ordered nothing yet. <a href="#articles">See the articles</a><//>`}
    ${found !== undefined &&
    found.length > 0 &&
    html`<${Table}
      caption="Your orders, the newest first"
      rows=${found}
      id=${(one: Order) => one.order}
      columns=${[
        { head: "Placed", cell: (one: Order) => html`<a href=${`#orders/${one.order}`}>${date(one.placed)}</a>` },
        { head: "Articles", cell: (one: Order) => one.lines.map((line) => `${line.quantity} × ${titled(line.sku)}`).join(", ") },
        { head: "Total", number: true, cell: (one: Order) => money(one.total, one.currency) },
        { head: "State", cell: (one: Order) => html`<${Badge} tone=${word(one)[0]}>${word(one)[1]}<//>` },
      ]}
    />`}
    ${next.value && html`<p><button class="quiet" type="button" onClick=${() => load(true)}>Show more</button></p>`}
  </section>`;
}

/** The list, or the order that the address names. */
export const Orders = () => (rest.value ? html`<${OneOrder} key=${rest.value} id=${rest.value} />` : html`<${List} />`);
