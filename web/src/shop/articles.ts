/** The articles: what is sold, its price as it changes, and a button to the basket. */
import { html } from "htm/preact";
import { announce } from "../frame/announce.ts";
import { count, many } from "../frame/format.ts";
import { Badge, Empty, Failure } from "../frame/parts.ts";
import { basket, LINES_MOST, put, QUANTITY_MOST } from "./basket.ts";
import { type Article, articles, failed, left, loaded, repriced, useCatalog } from "./catalog.ts";
import { money } from "./money.ts";

/** Fewer than these are said to be few. */
const FEW = 5;

function Stock({ sku }: { sku: string }) {
  const available = left.value.get(sku);
  if (available === undefined) return null;
  if (available <= 0) return html`<${Badge} tone="bad">out of stock<//>`;
  return html`<${Badge} tone=${available < FEW ? "warn" : "good"}>${available < FEW ? `only ${count(available)} left` : "in stock"}<//>`;
}

function Offer({ of }: { of: Article }) {
  const has = basket.value.get(of.sku) ?? 0;
  const full = has >= QUANTITY_MOST || (has === 0 && basket.value.size >= LINES_MOST);
  const add = () => {
    put(of.sku, has + 1);
    announce(`${of.title}: ${has + 1} in the basket`);
  };
  return html`<li class="card offer">
    <h3>${of.title}</h3>
    <p class="price">${money(of.price, of.currency)} ${repriced.value.has(of.sku) && html`<${Badge} tone="warn">new price<//>`}</p>
    <p class="stock"><${Stock} sku=${of.sku} /> ${has > 0 && html`<a href="#basket">${many(has, "piece")} in the basket</a>`}</p>
    <button type="button" disabled=${full} onClick=${add}>Add<span class="unseen"> ${of.title}</span> to basket</button>
  </li>`;
}

export function Articles() {
  useCatalog();
  const sold = [...articles.value.values()].filter((one) => one.sold).sort((a, b) => a.title.localeCompare(b.title));
  return html`<section aria-labelledby="articles">
    <div class="heading"><h2 id="articles">Articles</h2></div>
    <${Failure} text=${failed.value} />
    ${loaded.value && sold.length === 0 && html`<${Empty}>Nothing is sold here yet.<//>`}
    <ul class="goods">${sold.map((one) => html`<${Offer} key=${one.sku} of=${one} />`)}</ul>
  </section>`;
}
