/** The shop: articles, a basket, and orders as they happen. */
import { computed } from "@preact/signals";
import { html } from "htm/preact";
import type { VNode } from "preact";
import { show } from "../frame/layout.ts";
import { Articles } from "./articles.ts";
import { pieces } from "./basket.ts";
import { Buy } from "./buy.ts";
import { open } from "./checkout.ts";
import { Orders } from "./orders.ts";
import "./style.css";

// An order whose answer did not come is asked for again, wherever the page was left.
if (open.value) location.hash = "basket";

show({
  title: "Shop",
  role: "customer",
  needs: "person",
  views: [
    { id: "articles", name: "Articles", show: () => html`<${Articles} />` as VNode },
    { id: "basket", name: computed(() => (pieces.value ? `Basket (${pieces.value})` : "Basket")), show: () => html`<${Buy} />` as VNode },
    { id: "orders", name: "Orders", show: () => html`<${Orders} />` as VNode },
  ],
});
