/** The chat page: one's rooms beside the one that is looked at; on a phone one after the other. */
import { html } from "htm/preact";
import { effect } from "@preact/signals";
import type { VNode } from "preact";
import { rest, show } from "../frame/layout.ts";
import { account, me } from "../frame/session.ts";
import { Rooms } from "./rooms.ts";
import { callMe } from "./routes.ts";
import { Talk } from "./talk.ts";
import "./chat.css";

// Others see the name of the account beside the id.
let called = "";
effect(() => {
  const name = account.value?.name ?? "";
  if (me.value?.kind !== "user" || !name || called === `${me.value.name} ${name}`) return;
  called = `${me.value.name} ${name}`;
  callMe(name).catch(() => (called = ""));
});

function Chat() {
  const room = rest.value;
  return html`<div class=${room ? "chat inside" : "chat"}>
    <${Rooms} current=${room} />
    ${room
      ? html`<${Talk} key=${room} id=${room} />`
      : html`<section class="talk nothing" aria-label="Room"><p class="empty">Choose a room, or make one.</p></section>`}
  </div>`;
}

show({
  title: "Chat",
  role: "user",
  needs: "person",
  views: [{ id: "rooms", name: "Rooms", show: () => html`<${Chat} />` as VNode }],
});
