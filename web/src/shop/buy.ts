/** The basket's view: what is in it, what it costs, and the way to an order. */
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { Empty, Failure, Table } from "../frame/parts.ts";
import { basket, put, QUANTITY_MOST } from "./basket.ts";
import { Cards } from "./cards.ts";
import { articles, titled, useCatalog } from "./catalog.ts";
import { busy, failed, open, place } from "./checkout.ts";
import { money } from "./money.ts";

async function order(method = ""): Promise<void> {
  const placed = await place(method);
  if (placed === undefined) return;
  announce("Your order is accepted");
  location.hash = `orders/${placed}`;
}

/** The sums of the basket, one for each currency: an order has one, and says so where there are more. */
function total(): string {
  const sums = new Map<string, number>();
  for (const [sku, quantity] of basket.value) {
    const one = articles.value.get(sku);
    if (one) sums.set(one.currency, (sums.get(one.currency) ?? 0) + one.price * quantity);
  }
  return [...sums].map(([currency, sum]) => money(sum, currency)).join(" + ");
}

function Quantity({ sku, quantity }: { sku: string; quantity: number }) {
  const change = (event: Event) => {
    const field = event.target as HTMLInputElement;
    const wanted = Number(field.value);
    put(sku, wanted >= 1 ? wanted : quantity);
    field.value = String(basket.value.get(sku) ?? quantity);
  };
  return html`<input class="quantity" type="number" inputmode="numeric" min="1" max=${QUANTITY_MOST} value=${quantity}
    aria-label=${`How many of ${titled(sku)}`} disabled=${open.value !== undefined} onChange=${change} />`;
}

function Unknown() {
  return html`<div class="notice warn" role="status">
    <p>${busy.value ? "Your order is on its way …" : html`<strong>Your order was sent, and no answer came.</strong> It may be
      taken already. Ask again: it is the same order, and is never placed twice.`}</p>
    ${!busy.value && html`<button type="button" onClick=${() => order()}>Ask again</button>`}
  </div>`;
}

export function Buy() {
  useCatalog();
  // Left while an order was on its way: its answer is asked for first.
  useEffect(() => {
    if (open.value && !busy.value) void order();
  }, []);
  const lines = [...basket.value];
  const price = (sku: string, quantity = 1) => {
    const one = articles.value.get(sku);
    return one ? money(one.price * quantity, one.currency) : "…";
  };
  return html`<section class="sale" aria-labelledby="basket">
    <div class="heading"><h2 id="basket">Basket</h2></div>
    <${Failure} text=${failed.value} />
    ${open.value && html`<${Unknown} />`}
    ${lines.length === 0 && !open.value && html`<${Empty}>Nothing is in your basket. <a href="#articles">See the articles</a><//>`}
    ${lines.length > 0 &&
    html`<${Table}
        caption="What is in the basket"
        rows=${lines}
        id=${([sku]: [string, number]) => sku}
        columns=${[
          { head: "Article", cell: ([sku]: [string, number]) => titled(sku) },
          { head: "Price", number: true, cell: ([sku]: [string, number]) => price(sku) },
          { head: "Quantity", cell: ([sku, quantity]: [string, number]) => html`<${Quantity} sku=${sku} quantity=${quantity} />` },
          { head: "Sum", number: true, cell: ([sku, quantity]: [string, number]) => price(sku, quantity) },
          {
            head: "Change",
            cell: ([sku]: [string, number]) => html`<button class="quiet" type="button" disabled=${open.value !== undefined}
              onClick=${() => put(sku, 0)}>Remove<span class="unseen"> ${titled(sku)}</span></button>`,
          },
        ]}
      />
      <p class="total">Total <strong>${total()}</strong></p>`}
    ${lines.length > 0 && !open.value &&
    html`<${Cards} label="Which card?" button="Place the order" busy=${busy.value} send=${order} />`}
  </section>`;
}
