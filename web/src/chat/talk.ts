/** The room that is looked at: what was said, what is being sent, and where one writes. */
import { html } from "htm/preact";
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { many } from "../frame/format.ts";
import { link } from "../frame/live.ts";
import { Failure } from "../frame/parts.ts";
import { Composer, type Mending } from "./composer.ts";
import { Head } from "./head.ts";
import { Messages } from "./messages.ts";
import { Opened } from "./opened.ts";
import { outbox } from "./outbox.ts";
import type { Entry } from "./routes.ts";
import { refresh } from "./rooms.ts";

/** Pixels from an end of the list within which one is there. */
const NEAR = 100;

export function Talk({ id }: { id: string }) {
  const opened = useMemo(() => new Opened(id), []);
  const list = useRef<HTMLDivElement>(null);
  const held = useRef(true);
  const behind = useSignal(0);
  const mending = useSignal<Mending | undefined>(undefined);
  const going = useRef(false);

  useEffect(() => {
    let burst = 0;
    let quiet: ReturnType<typeof setTimeout>;
    opened.heard = (entry: Entry) => {
      if (!held.current) behind.value++;
      // One sentence for what came together: the first words where it was one message.
      burst++;
      announce(burst === 1 ? `${opened.nameOf(entry.author)}: ${entry.text ?? ""}` : many(burst, "new message"));
      clearTimeout(quiet);
      quiet = setTimeout(() => (burst = 0), 1000);
    };
    opened.start();
    const looked = () => !document.hidden && held.current && opened.seen();
    document.addEventListener("visibilitychange", looked);
    return () => {
      clearTimeout(quiet);
      document.removeEventListener("visibilitychange", looked);
      opened.stop();
      refresh.now();
    };
  }, []);

  // A keyboard that opens, or a line more in what is written, hides no message.
  useEffect(() => {
    const box = list.current;
    if (box === null) return;
    const sized = new ResizeObserver(() => {
      if (held.current) box.scrollTop = box.scrollHeight;
    });
    sized.observe(box);
    return () => sized.disconnect();
  }, []);

  const sending = outbox.value.filter((one) => one.room === id);
  const turn = opened.turn.value;
  // Whoever is at the end stays there; whoever reads further up is not moved.
  useLayoutEffect(() => {
    const box = list.current;
    if (box === null || !held.current) return;
    box.scrollTop = box.scrollHeight;
    behind.value = 0;
    if (document.hidden) opened.atEnd();
    else opened.seen();
  }, [turn, sending.length, opened.room.value]);

  const older = async () => {
    const box = list.current;
    if (box === null || going.current || opened.timeline.top < 0) return;
    going.current = true;
    const from = box.scrollHeight - box.scrollTop;
    const more = await opened.older();
    // What is looked at stays where it is, with more above it.
    requestAnimationFrame(() => {
      if (more) box.scrollTop = box.scrollHeight - from;
      going.current = false;
    });
  };
  const scrolled = () => {
    const box = list.current!;
    held.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    if (held.current) {
      behind.value = 0;
      if (!document.hidden) opened.seen();
    } else if (box.scrollTop < NEAR && opened.timeline.low > 1) void older();
  };
  const toEnd = () => {
    held.current = true;
    behind.value = 0;
    list.current!.scrollTop = list.current!.scrollHeight;
    opened.seen();
  };

  if (opened.gone.value)
    return html`<section class="talk nothing" aria-label="Room"><p class="empty">There is no such room, or you are not in it any more. <a href="#rooms">Back to your rooms</a></p></section>`;
  const room = opened.room.value;
  return html`<section class="talk" aria-label="Room">
    <${Head} opened=${opened} />
    <div class="log" ref=${list} tabindex="0" role="region" aria-label="Messages" onScroll=${scrolled}>
      ${opened.timeline.low > 1 && opened.timeline.top > 0 && html`<button class="quiet earlier" type="button" onClick=${older}>Earlier messages</button>`}
      <${Messages} opened=${opened} sending=${sending} mend=${(one: Mending) => (mending.value = one)} turn=${turn} />
    </div>
    ${behind.value > 0 && html`<button class="below" type="button" onClick=${toEnd}>${many(behind.value, "new message")} ↓</button>`}
    <${Failure} text=${link.value === "live" ? opened.unheard.value || opened.failed.value : ""} />
    ${link.value !== "live" && turn > 0 && html`<p class="notice warn offline" role="status">No connection. What you write is sent when it is back.</p>`}
    <${Writing} opened=${opened} />
    ${room && html`<${Composer} opened=${opened} room=${room} mending=${mending} sent=${toEnd} />`}
  </section>`;
}

function Writing({ opened }: { opened: Opened }) {
  const names = opened.writing.value.map((user) => opened.nameOf(user));
  const said = names.length === 0 ? "" : names.length === 1 ? `${names[0]} writes …` : names.length < 4 ? `${names.join(", ")} write …` : "Several people write …";
  return html`<p class="writing">${said}</p>`;
}
