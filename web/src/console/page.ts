/** The operators' console. */
import { html } from "htm/preact";
import type { VNode } from "preact";
import { show } from "../frame/layout.ts";
import { Connections } from "./connections.ts";
import { Letters } from "./letters.ts";
import { Services } from "./services.ts";
import { Tail } from "./tail.ts";

show({
  title: "Console",
  role: "operator",
  hint: html`Make one with <code>gateway token --role operator</code>; <code>gateway up</code> keeps one in <code>.gateway/operator.token</code>.`,
  views: [
    { id: "services", name: "Services", show: () => html`<${Services} />` as VNode },
    { id: "connections", name: "Connections", show: () => html`<${Connections} />` as VNode },
    { id: "letters", name: "Dead letters", show: () => html`<${Letters} />` as VNode },
    { id: "live", name: "Live", show: () => html`<${Tail} />` as VNode },
  ],
});
