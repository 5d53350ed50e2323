/** The head of a room: what it is called, who is here, who is in it, and the way out. */
import { html } from "htm/preact";
import { useSignal } from "@preact/signals";
import { reason } from "../frame/api.ts";
import { many } from "../frame/format.ts";
import { link } from "../frame/live.ts";
import { Dialog, Failure } from "../frame/parts.ts";
import { me } from "../frame/session.ts";
import type { Opened } from "./opened.ts";
import { go, refresh, titleOf } from "./rooms.ts";
import * as routes from "./routes.ts";

export function Head({ opened }: { opened: Opened }) {
  const shown = useSignal(false);
  const room = opened.room.value;
  const others = opened.here.value.filter((user) => user !== me.value?.name);
  const here = others.length === 0 ? "Nobody else is here" : others.length <= 3 ? `Here: ${others.map((one) => opened.nameOf(one)).join(", ")}` : `${many(others.length, "other")} here`;
  return html`<header class="head">
    <a class="back" href="#rooms"><span aria-hidden="true">←</span> Rooms</a>
    <h2>${room ? titleOf(room) : "…"}</h2>
    <p class="here">${link.value === "live" && here}</p>
    <button class="quiet" type="button" onClick=${() => (shown.value = true)}>${many(opened.members.value.length, "member")}</button>
    ${shown.value && room && html`<${People} opened=${opened} room=${room} close=${() => (shown.value = false)} />`}
  </header>`;
}

function People({ opened, room, close }: { opened: Opened; room: routes.Room; close: () => void }) {
  const failed = useSignal("");
  const done = async (asked: Promise<unknown>, then: () => void = () => undefined) => {
    failed.value = "";
    try {
      await asked;
      await opened.look();
      refresh.now();
      then();
    } catch (error) {
      failed.value = reason(error);
    }
  };
  const invite = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const user = String(new FormData(form).get("member")).trim();
    void done(routes.invite(room.id, user), () => form.reset());
  };
  const write = (user: string) =>
    routes.direct(user).then(({ id }) => {
      close();
      go(id);
    }, (error: unknown) => (failed.value = reason(error)));
  const out = (user: string, name: string) => confirm(`Send ${name} out?`) && void done(routes.sendOut(room.id, user));
  const leave = () =>
    void done(routes.leave(room.id), () => {
      close();
      go("");
    });
  const mine = me.value?.name;
  return html`<${Dialog} title=${`Members of ${titleOf(room)}`} close=${close}>
    <${Failure} text=${failed.value} />
    <ul class="choices" aria-label="Members">
      ${opened.members.value.map(({ user, name, role }) => html`<li key=${user}>
        <span><strong>${name || user}</strong> ${name && html`<code>${user}</code>`} ${role === "owner" && html`<span class="badge">owner</span>`}
          ${opened.here.value.includes(user) && html` <span class="badge good"><span aria-hidden="true">✓</span> here</span>`}</span>
        <span class="doing">
        ${user !== mine && room.kind !== "direct" && html`<button class="quiet" type="button" onClick=${() => write(user)}>Message<span class="unseen"> ${name || user}</span></button>`}
        ${user !== mine && room.role === "owner" && html`<button class="danger" type="button" onClick=${() => out(user, name || user)}>Send out<span class="unseen"> ${name || user}</span></button>`}</span></li>`)}
    </ul>
    ${room.kind === "private" && room.role === "owner" &&
    html`<form class="ask" method="post" onSubmit=${invite}>
      <label for="member">User id of somebody to let in</label>
      <div class="row"><input id="member" name="member" required pattern="[A-Za-z0-9_.@:\\-]{1,64}" autocomplete="off" autocapitalize="none" spellcheck="false" />
      <button type="submit">Let in</button></div>
    </form>`}
    ${room.role !== "none" && room.kind !== "direct" && html`<div class="actions"><button class="danger" type="button" onClick=${leave}>Leave the room</button></div>`}
  <//>`;
}
