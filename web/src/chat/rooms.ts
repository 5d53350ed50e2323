/** One's rooms, with what is unread in each; and the ways to another: make one, join one, write to somebody. */
import { html } from "htm/preact";
import { type Signal, signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { reason } from "../frame/api.ts";
import { count, many } from "../frame/format.ts";
import { subscribe } from "../frame/live.ts";
import { Dialog, Failure } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";
import { me } from "../frame/session.ts";
import { newId } from "./outbox.ts";
import * as routes from "./routes.ts";

/** What nobody tells us is asked for: messages of rooms that are not looked at. */
const EVERY = 4_000;

export const titleOf = (room: routes.Room) =>
  room.kind === "direct" ? room.other_name || room.other || "Somebody without an account" : room.name;
export const go = (room: string) => (location.hash = room ? `rooms/${room}` : "rooms");
/** Asks for the list anew; set by the list that is shown. */
export const refresh: { now: () => void } = { now: () => undefined };

export function Rooms({ current }: { current: string }) {
  const { value: rooms, error, again } = usePoll(routes.mine, EVERY);
  const dialog = useSignal<"" | "make" | "join" | "write">("");
  refresh.now = () => void again();
  useEffect(
    () =>
      subscribe(
        `chat/users/${me.value?.name}/notices`,
        ({ data }) => {
          const { kind, room, read_seq = 0, unread = 0 } = data as routes.Notice;
          if (kind === "read")
            rooms.value = rooms.value?.map((one) => (one.id === room && one.read_seq <= read_seq ? { ...one, read_seq, unread } : one));
          else void again();
        },
        () => undefined,
      ),
    [],
  );
  const listed = [...(rooms.value ?? [])].sort((a, b) => titleOf(a).localeCompare(titleOf(b)));
  const unread = listed.reduce((sum, one) => sum + one.unread, 0);
  useEffect(() => {
    document.title = `${unread ? `(${unread}) ` : ""}Chat · Topic Gateway`;
  }, [unread]);
  const close = () => {
    dialog.value = "";
  };
  const done = (room: routes.Room) => {
    close();
    void again();
    go(room.id);
    announce(`In ${titleOf(room)}`);
  };
  return html`<section class="rooms" aria-labelledby="rooms">
    <div class="heading"><h2 id="rooms">Rooms</h2>
      <button class="quiet" type="button" onClick=${() => (dialog.value = "make")}>New room</button></div>
    <div class="actions">
      <button class="quiet" type="button" onClick=${() => (dialog.value = "join")}>Join a room</button>
      <button class="quiet" type="button" onClick=${() => (dialog.value = "write")}>Message somebody</button></div>
    <${Failure} text=${error.value} />
    ${rooms.value && listed.length === 0 && html`<p class="hint">You are in no room yet.</p>`}
    <ul aria-label="Your rooms">
      ${listed.map((one) => html`<${Line} key=${one.id} room=${one} here=${one.id === current} />`)}
    </ul>
    ${dialog.value === "make" && html`<${Make} close=${close} done=${done} />`}
    ${dialog.value === "join" && html`<${Join} close=${close} done=${done} mine=${listed} />`}
    ${dialog.value === "write" && html`<${Write} close=${close} done=${done} />`}
  </section>`;
}

function Line({ room, here }: { room: routes.Room; here: boolean }) {
  const shown = here ? 0 : room.unread;
  return html`<li><a href=${`#rooms/${room.id}`} aria-current=${here ? "page" : null}>
    <span class="sign" aria-hidden="true">${{ public: "#", private: "◆", direct: "@" }[room.kind]}</span>
    <span class="title">${titleOf(room)}<span class="unseen">, ${room.kind}</span></span>
    ${shown > 0 && html`<span class="count">${shown > 99 ? "99+" : count(shown)}<span class="unseen"> unread</span></span>`}
  </a></li>`;
}

interface Way {
  close: () => void;
  done: (room: routes.Room) => void;
}

/** A dialog that ends with a room, or says why not. */
function Ask({ title, verb, ask, close, done, children }: Way & {
  title: string;
  verb: string;
  ask: (given: FormData) => Promise<routes.Room>;
  children?: ComponentChildren;
}) {
  const failed = useSignal("");
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    failed.value = ""; // the same again is said again
    try {
      done(await ask(new FormData(event.target as HTMLFormElement)));
    } catch (error) {
      failed.value = reason(error);
    }
  };
  return html`<${Dialog} title=${title} close=${close}>
    <form class="ask" method="post" onSubmit=${send}>
      <${Failure} text=${failed.value} />
      ${children}
      <div class="actions"><button type="submit">${verb}</button></div>
    </form>
  <//>`;
}

function Make(way: Way) {
  const key = useMemo(newId, []); // asked twice it is one room
  const ask = (given: FormData) => routes.create(String(given.get("name")).trim(), String(given.get("kind")), key);
  return html`<${Ask} ...${way} title="New room" verb="Make the room" ask=${ask}>
    <label for="room-name">Name</label>
    <input id="room-name" name="name" autofocus required maxlength="100" pattern=".*\\S.*" autocomplete="off" />
    <fieldset><legend>Who may come in</legend>
      <label class="tick"><input type="radio" name="kind" value="public" checked /> Anybody (public)</label>
      <label class="tick"><input type="radio" name="kind" value="private" /> Whom you let in (private)</label></fieldset>
  <//>`;
}

function Join({ mine, close, done }: Way & { mine: routes.Room[] }) {
  const open: Signal<{ id: string; name: string }[] | undefined> = useMemo(() => signal(undefined), []);
  const failed = useSignal("");
  const tried = <T,>(asked: Promise<T>, then: (value: T) => void) => {
    failed.value = "";
    asked.then(then).catch((error: unknown) => (failed.value = reason(error)));
  };
  useEffect(() => tried(routes.open(), (found) => (open.value = found)), []);
  const others = open.value?.filter((one) => !mine.some((room) => room.id === one.id));
  return html`<${Dialog} title="Join a room" close=${close}>
    <${Failure} text=${failed.value} />
    ${others === undefined ? !failed.value && html`<p class="hint">One moment …</p>` : others.length === 0 && html`<p class="hint">There is no public room that you are not in.</p>`}
    <ul class="choices" aria-label="Public rooms">
      ${others?.map((one) => html`<li key=${one.id}><span>${one.name}</span>
        <button class="quiet" type="button" onClick=${() => tried(routes.join(one.id), done)}>Join<span class="unseen"> ${one.name}</span></button></li>`)}
    </ul>
    ${others && others.length > 0 && html`<p class="hint">${many(others.length, "public room")}.</p>`}
  <//>`;
}

function Write(way: Way) {
  const ask = (given: FormData) => routes.direct(String(given.get("user")).trim());
  return html`<${Ask} ...${way} title="Message somebody" verb="Write to them" ask=${ask}>
    <label for="user">Their user id</label>
    <input id="user" name="user" autofocus required pattern="[A-Za-z0-9_.@:\\-]{1,64}" autocomplete="off" autocapitalize="none" spellcheck="false" />
    <p class="hint">Yours is <code>${me.value?.name}</code>: give it to whoever is to write to you.</p>
  <//>`;
}
