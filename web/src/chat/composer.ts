/** Where one writes: Enter sends, Shift and Enter begins a line, the arrow up mends what one said last. */
import { html } from "htm/preact";
import { type Signal, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { reason } from "../frame/api.ts";
import { me } from "../frame/session.ts";
import type { Opened } from "./opened.ts";
import { command, newId, send } from "./outbox.ts";
import { join, type Room } from "./routes.ts";
import { refresh } from "./rooms.ts";

/** As chat has it (chat/limits.py). */
const MOST = 4_000;

/** A message of one's own that is being changed. */
export interface Mending {
  seq: number;
  text: string;
}

interface Of {
  opened: Opened;
  room: Room;
  mending: Signal<Mending | undefined>;
  sent: () => void;
}

export function Composer({ opened, room, mending, sent }: Of) {
  const text = useSignal("");
  const failed = useSignal("");
  const field = useRef<HTMLTextAreaElement>(null);
  const of = mending.value;
  // At once, or what is typed next would go elsewhere.
  useLayoutEffect(() => {
    if (of === undefined) return;
    text.value = of.text;
    field.current?.focus();
  }, [of]);
  // As high as what is written, up to what the style allows.
  useLayoutEffect(() => {
    const box = field.current;
    if (box === null) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }, [text.value]);

  if (room.role === "none") {
    const enter = () =>
      join(room.id)
        .then(() => opened.look())
        .then(refresh.now)
        .catch((error: unknown) => (failed.value = reason(error)));
    return html`<div class="composer">${failed.value && html`<p class="why" role="alert">${failed.value}</p>`}
      <button type="button" onClick=${enter}>Join to write</button></div>`;
  }

  const stop = () => {
    mending.value = undefined;
    text.value = "";
    failed.value = "";
  };
  const submit = async () => {
    const said = text.value.trim();
    if (!said) return;
    if (of === undefined) {
      const taken = send(room.id, said);
      failed.value = taken ? "" : "Too much waits to be sent. This stays here until some of it is.";
      if (taken) {
        text.value = "";
        sent();
      }
      return;
    }
    try {
      if (said !== of.text) await command(room.id, "edit", { id: newId(), seq: of.seq, text: said });
      stop();
    } catch (error) {
      failed.value = reason(error);
    }
  };
  const pressed = (event: KeyboardEvent) => {
    // Of an input method, Enter chooses a word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      void submit();
    } else if (event.key === "Escape" && of) stop();
    else if (event.key === "ArrowUp" && !text.value) {
      const last = opened.timeline.entries.findLast((one) => one.kind === "message" && one.author === me.value?.name && !one.deleted);
      if (last) mending.value = { seq: last.seq, text: last.text ?? "" };
    }
  };
  const typed = (event: InputEvent) => {
    text.value = (event.target as HTMLTextAreaElement).value;
    if (text.value && !of) opened.types();
  };
  return html`<form class="composer" method="post" onSubmit=${(event: SubmitEvent) => {
    event.preventDefault();
    void submit();
  }}>
    ${of && html`<p class="mending">You change a message. <button class="quiet" type="button" onClick=${stop}>Leave it as it was</button></p>`}
    ${failed.value && html`<p class="why" role="alert">${failed.value}</p>`}
    <label class="unseen" for="message">Message</label>
    <textarea id="message" ref=${field} rows="1" maxlength=${MOST} placeholder="Write a message" enterkeyhint="send"
      value=${text.value} onInput=${typed} onKeyDown=${pressed}></textarea>
    <button type="submit">${of ? "Change" : "Send"}</button>
  </form>`;
}
