/** One order as it happens: its steps with their times, what it waits for, and what its customer may do. */
import { type Signal, useComputed, useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { call, Problem, reason } from "../frame/api.ts";
import { clock } from "../frame/format.ts";
import { subscribe } from "../frame/live.ts";
import { Badge, Failure, Table, Time } from "../frame/parts.ts";
import { me } from "../frame/session.ts";
import { Cards, declined } from "./cards.ts";
import { titled, useCatalog } from "./catalog.ts";
import { money } from "./money.ts";
import { asked, type Line, type Order, SAID, standing, STEPS, type Told } from "./standing.ts";

/** After so long without news the page says whom the order waits for, in ms. */
const PATIENCE = 6_000;
/** Pause before an order that could not be loaded is asked for again, in ms. */
const AGAIN = 3_000;
/** Cards that may be tried for one order (ecommerce/limits.py). */
const ATTEMPTS = 3;

interface Paying {
  status: string;
  attempt: number;
}

interface Followed {
  order: Signal<Order | undefined>;
  /** What happened, by its word: when, and what was said with it. */
  told: Signal<ReadonlyMap<string, Told>>;
  payment: Signal<Paying | undefined>;
  /** Why it is not known whether another card may be tried; empty where it is. */
  unpaid: Signal<string>;
  failed: Signal<string>;
  /** Whether there was no news for a while. */
  quiet: Signal<boolean>;
  load: () => Promise<void>;
}

/** Follow an order: as it stands, what was told of it before, and what is told from now on. */
function useOrder(id: string): Followed {
  const order = useSignal<Order | undefined>(undefined);
  const told = useSignal<ReadonlyMap<string, Told>>(new Map());
  const payment = useSignal<Paying | undefined>(undefined);
  const unpaid = useSignal("");
  const failed = useSignal("");
  const quiet = useSignal(false);
  const waiting = useRef<ReturnType<typeof setTimeout>>(undefined);
  const repay = useRef<ReturnType<typeof setTimeout>>(undefined);
  const reload = useRef<ReturnType<typeof setTimeout>>(undefined);
  const topic = `ecommerce/orders/${id}/status/${me.value?.name}`;

  const hear = (one: Told) => {
    const known = told.value.get(one.what);
    if (known !== undefined && known.at >= one.at) return false;
    told.value = new Map(told.value).set(one.what, one);
    quiet.value = false;
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => (quiet.value = true), PATIENCE);
    return true;
  };
  const pay = async () => {
    try {
      payment.value = await call<Paying>("GET", `ecommerce/payments/${id}`);
      unpaid.value = "";
    } catch (error) {
      unpaid.value = reason(error);
      clearTimeout(repay.current); // asked twice meanwhile: it is asked again once
      repay.current = setTimeout(() => over.current || void pay(), AGAIN);
    }
  };
  const load = async () => {
    try {
      const [found, past] = await Promise.all([
        call<Order>("GET", `ecommerce/orders/${id}`),
        call<{ publications: { data: Told; tags: { ts: string } }[] }>("GET", `topics/${topic}/history`),
      ]);
      order.value = found;
      for (const { data, tags } of past.publications) hear({ ...data, at: Number(tags.ts) });
      failed.value = "";
      if (found.payment === "declined") await pay();
    } catch (error) {
      failed.value = reason(error);
      clearTimeout(reload.current);
      if (!(error instanceof Problem && error.status === 404))
        reload.current = setTimeout(() => over.current || void load(), AGAIN);
    }
  };
  const over = useRef(false);
  useEffect(() => {
    over.current = false;
    waiting.current = setTimeout(() => (quiet.value = true), PATIENCE);
    const stop = subscribe(
      topic,
      ({ data, at }) => {
        const one = { ...(data as Told), at };
        if (!hear(one)) return; // the last one again, as whoever subscribes gets it
        announce(SAID[one.what] ?? one.what);
        if (one.what === "declined") void pay();
        else payment.value = undefined;
      },
      // Subscribed, also once more: what may have been missed is loaded.
      (why) => (why ? (failed.value = why) : void load()),
    );
    return () => {
      over.current = true;
      for (const timer of [waiting, repay, reload]) clearTimeout(timer.current);
      stop();
    };
  }, [topic]);
  return { order, told, payment, unpaid, failed, quiet, load };
}

function Steps({ told, order }: { told: ReadonlyMap<string, Told>; order: Order }) {
  const ended = order.ended !== null && order.status !== "completed";
  const rows = STEPS.filter(({ what }) => !ended || told.has(what));
  const next = rows.findIndex(({ what }) => !told.has(what));
  return html`<ol class="steps" aria-label="Steps of the order">
    ${rows.map(({ what, name }, n) => {
      const at = told.get(what)?.at;
      const state = at !== undefined ? "done" : n === next ? "next" : "later";
      return html`<li key=${what} class=${state} aria-current=${state === "next" ? "step" : null}>
        <span class="mark" aria-hidden="true">${state === "done" ? "✓" : n + 1}</span>
        <span>${name}<span class="unseen">: ${state === "done" ? "done" : state === "next" ? "waited for" : "later"}</span></span>
        ${at !== undefined && html`<${Time} at=${at} as=${clock} />`}
      </li>`;
    })}
    ${ended &&
    html`<li class="failed">
      <span class="mark" aria-hidden="true">✕</span> <span>${SAID[order.status]}</span>
      <${Time} at=${order.ended!} as=${clock} />
    </li>`}
  </ol>`;
}

function Lines({ order }: { order: Order }) {
  const price = (one: Line, quantity: number) => money(one.price * quantity, order.currency);
  return html`<${Table}
      caption="What was ordered"
      rows=${order.lines}
      id=${(one: Line) => one.sku}
      columns=${[
        { head: "Article", cell: (one: Line) => titled(one.sku) },
        { head: "Price", number: true, cell: (one: Line) => price(one, 1) },
        { head: "Quantity", number: true, cell: (one: Line) => one.quantity },
        { head: "Sum", number: true, cell: (one: Line) => price(one, one.quantity) },
      ]}
    />
    <p class="total">Total <strong>${money(order.total, order.currency)}</strong></p>`;
}

export function OneOrder({ id }: { id: string }) {
  useCatalog();
  const { order, told, payment, unpaid, failed, quiet, load } = useOrder(id);
  const busy = useSignal(false);
  const wrong = useSignal("");
  // As it was told last: the row that was loaded may be older, and what was loaded may be newer.
  const now = useComputed(() => standing(order.value, told.value));
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  const act = async (path: string, body?: unknown) => {
    if (busy.value) return;
    busy.value = true;
    wrong.value = "";
    try {
      await call("POST", path, body);
    } catch (error) {
      wrong.value = reason(error);
    } finally {
      await load();
      busy.value = false;
    }
  };
  const cancel = () => confirm("Cancel this order?") && act(`ecommerce/orders/${id}/cancel`);
  const it = now.value;
  const paying = payment.value;
  const another = it && !it.ended && it.payment === "declined" && it.detail !== "stolen_card";
  const retry = another && paying?.status === "declined" && paying.attempt < ATTEMPTS;
  const open = it && (it.status === "accepted" || it.status === "reserved");
  const unknown = another && !paying && unpaid.value;
  const waits = it && !it.ended && !retry && !unknown && quiet.value ? asked(it) : "";
  return html`<section class="sale" aria-labelledby="order">
    <div class="heading">
      <h2 id="order" tabindex="-1" ref=${heading}>Order</h2> <code>${id}</code>
      ${it && html`<${Badge} tone=${it.tone}>${it.word}<//>`}
    </div>
    <${Failure} text=${wrong.value || (order.value ? "" : failed.value)} />
    ${it?.why && html`<p class="notice ${it.tone === "bad" ? "bad" : "good"}">${it.why}</p>`}
    ${retry &&
    html`<p class="notice warn"><strong>The card was declined:</strong> ${declined(it.detail)}. The goods are kept for you.</p>
      <${Cards} label="Which other card?" button="Pay with this card" busy=${busy.value}
        send=${(method: string) => act(`ecommerce/payments/${id}/attempts`, { method })} />`}
    ${unknown && html`<p class="notice warn" role="status"><strong>The card was declined:</strong> ${declined(it.detail)}.
      Another one can be tried as soon as payments answers; it is asked again. Now: ${unknown}</p>`}
    ${waits && html`<p class="notice warn" role="status"><strong>Your order waits.</strong> ${waits} It is not lost, and goes on by itself.</p>`}
    ${it &&
    html`<${Steps} told=${told.value} order=${it} />
      ${it.tracking && html`<p>Number of the parcel: <code>${it.tracking}</code></p>`}
      <${Lines} order=${it} />
      <p class="actions">
        ${open && html`<button class="danger" type="button" disabled=${busy.value} onClick=${cancel}>Cancel the order</button>`}
        <a href="#orders">All orders</a> <a href="#articles">Articles</a>
      </p>`}
  </section>`;
}
