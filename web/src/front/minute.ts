/** A minute with the demo: steps, of which each shows one promise, as far as what they need is here. */
import { html } from "htm/preact";
import type { ComponentChildren } from "preact";
import { root } from "../frame/root.ts";
import { Inventory } from "./inventory.ts";
import { Letters } from "./letters.ts";
import { Sensor } from "./sensor.ts";

interface Of {
  parts: ReadonlySet<string>;
}

/** A page beside this one. It begins signed out: no other tab, and no other window of its, is told who is here. */
const Aside = ({ to, children }: { to: string; children?: ComponentChildren }) =>
  html`<a class="go" href=${new URL(to, root).href} target="_blank" rel="noopener">${children}<span class="unseen">, in a new tab</span></a>`;

/** What it shows is of these; the last of them is only asked who somebody is. */
const APPS = ["devices", "chat", "ecommerce", "accounts"];

const Step = ({ title, children }: { title: string; children?: ComponentChildren }) =>
  html`<li class="card"><h3>${title}</h3>${children}</li>`;

const Chat = () => html`<${Step} title="Chat with yourself, in two windows">
  <p>Create an account in each, make a room in the first and join it in the second. A message is kept before it is shown: reload, or lose
    the connection, and nothing is missing.</p>
  <p class="actions"><${Aside} to="chat/">First window<//> <${Aside} to="chat/">Second window<//></p>
<//>`;

const Shop = () => html`<${Step} title="Buy something, and watch the order">
  <p>Create an account, put something into the basket and place the order. Orders, stock, payments and parcels are services of their own:
    each hears of your order from the log, does its part and tells it, and the page hears that as well.</p>
  <p class="actions"><${Aside} to="shop/">Open the shop<//></p>
<//>`;

const Stop = ({ parts }: Of) => html`<${Step} title="Stop the inventory service, and start it again">
  <p>While it is stopped, buy once more: your order is taken all the same, and waits. What the service has not heard stays in the log; started
    again, it goes on where it stopped, and your order is completed.</p>
  ${parts.has("services") ? html`<${Inventory} />` : html`<p class="hint">The button is for operators.</p>`}
<//>`;

const Replay = ({ parts }: Of) => html`<${Step} title="Replay a dead letter">
  <p>What a service cannot handle blocks nobody, and is not lost: it becomes a dead letter, with the reason. Show it, mend what it says,
    and replay it.</p>
  ${parts.has("dead letters") ? html`<${Letters} />` : html`<p class="hint">Dead letters are for operators.</p>`}
<//>`;

export function Minute({ parts }: Of) {
  const shop = parts.has("ecommerce.catalog");
  const chat = parts.has("chat.rooms");
  const fleet = parts.has("devices.registry");
  const others = [...parts].filter((one) => one.includes(".") && !APPS.includes(one.split(".")[0]!));
  return html`${shop || chat || fleet
    ? html`<h2>A minute with it</h2>
        <ol class="minute">
          ${fleet &&
          html`<${Step} title="See a sensor move">
            <p>A device says over MQTT what it measures. The gateway keeps that in its log, and tells it to every page that watches, as it
              comes: no page asks again and again.</p>
            <${Sensor} />
          <//>`}
          ${chat && html`<${Chat} />`}
          ${shop && html`<${Shop} />`}
          ${shop && html`<${Stop} parts=${parts} />`}
          <${Replay} parts=${parts} />
        </ol>`
    : html`<p class="empty">A fleet, a shop and a chat to try it with are not here, or not for you: <code>gateway up --demo</code> brings
        them.</p>`}
  ${others.length > 0 && html`<p>Services here that answer over HTTP: ${others.map((one, n) => html`${n > 0 && ", "}<code>${one}</code>`)}.</p>`}`;
}
