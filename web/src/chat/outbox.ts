/** What was written and is not in the room yet: sent in the order typed, one at a time in a room, until it is. */
import { effect, signal } from "@preact/signals";
import { connected, link } from "../frame/live.ts";
import { ended, person } from "../frame/session.ts";

export interface Sending {
  /** The client's own: what is sent again with it is the same message. */
  id: string;
  room: string;
  text: string;
  at: number;
  state: "sending" | "sent" | "failed";
  /** Its number, once it has one. */
  seq?: number;
  why?: string;
}

/** What the service answers to whoever wrote. */
interface Answer {
  seq?: number;
  error?: string;
  retry_after?: number;
}

const WHY: Record<string, string> = {
  no_room: "You are not in this room.",
  not_member: "Join the room to write in it.",
  no_message: "That message is not there any more.",
  not_yours: "That message is somebody else's.",
};
/** Pause before something is sent again, in ms: also when nobody says that the connection is back. */
const AGAIN = 3_000;
/** Messages that may wait to be sent: more is not written by hand while a connection is away. */
const WAITING = 200;

/** It was not done; `final`: the same again would be answered the same. */
class Failed extends Error {
  constructor(
    why: string,
    readonly final: boolean,
  ) {
    super(why);
  }
}

/** Ask the service by rpc, and return the number of what was done; raises `Failed`. */
export async function command(room: string, what: string, data: object): Promise<number> {
  const by = person.value;
  let said: Answer;
  try {
    said = ((await connected().rpc(`chat/rooms/${room}/${what}`, data)) as { data: Answer }).data;
  } catch (error) {
    // Codes from 100 are the gateway's: no right, too large, not what it takes. Below, nobody knows whether it came.
    const { code = 0, message = "", temporary = false } = error as { code?: number; message?: string; temporary?: boolean };
    throw new Failed(code >= 100 ? message : "No answer came. Try again.", code >= 100 && !temporary);
  }
  if (said.error === "too_fast") {
    await pause((said.retry_after ?? 1) * 1000);
    if (person.value !== by) throw new Failed("Whoever wrote this is not signed in here any more.", false);
    return command(room, what, data);
  }
  if (said.error) throw new Failed(WHY[said.error] ?? said.error, true);
  return said.seq ?? 0;
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** A UUID; `randomUUID` is there for https and this machine alone. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 15) | 64;
  bytes[8] = (bytes[8]! & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

const KEY = "topic-gateway.chat";
export const outbox = signal<Sending[]>([]);
const running = new Set<string>();
let whose = "";

// It outlives a reload of the tab, and a session that ended by itself. It belongs to whoever wrote it, and goes when they
// sign out.
effect(() => {
  if (person.value === whose) return;
  whose = person.value;
  if (!whose && !ended.peek()) sessionStorage.removeItem(KEY);
  const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as { whose?: string; items?: Sending[] };
  outbox.value = kept.whose === whose ? (kept.items ?? []) : [];
  for (const room of new Set(outbox.value.map((one) => one.room))) void run(room);
});
effect(() => {
  const items = outbox.value.filter((one) => one.state !== "sent");
  if (whose) sessionStorage.setItem(KEY, JSON.stringify({ whose, items }));
});

/** Returns false where too much waits already: nothing of it is taken then. */
export function send(room: string, text: string): boolean {
  if (outbox.value.length >= WAITING) return false;
  outbox.value = [...outbox.value, { id: newId(), room, text, at: Date.now(), state: "sending" }];
  void run(room);
  return true;
}

export function again(id: string): void {
  const room = mark(id, { state: "sending" });
  if (room) void run(room);
}

/** It is in the room, or nobody wants it any more. */
export function forget(ids: ReadonlySet<string>): void {
  if (outbox.value.some((one) => ids.has(one.id))) outbox.value = outbox.value.filter((one) => !ids.has(one.id));
}

/** All of `room` up to `top` was seen: also what was sent just before one left it, and is far above by now. */
export function seen(room: string, top: number): void {
  forget(new Set(outbox.value.filter((one) => one.room === room && one.seq !== undefined && one.seq <= top).map((one) => one.id)));
}

function mark(id: string, how: Partial<Sending>): string | undefined {
  outbox.value = outbox.value.map((one) => (one.id === id ? { ...one, ...how } : one));
  return outbox.value.find((one) => one.id === id)?.room;
}

async function run(room: string): Promise<void> {
  const mine = `${whose} ${room}`;
  if (running.has(mine)) return;
  running.add(mine);
  for (;;) {
    const next = outbox.value.find((one) => one.room === room && one.state === "sending");
    if (next === undefined || !mine.startsWith(`${whose} `)) break;
    try {
      const seq = await command(room, "send", { id: next.id, text: next.text });
      mark(next.id, { state: "sent", seq });
    } catch (error) {
      if (error instanceof Failed && error.final) mark(next.id, { state: "failed", why: error.message });
      else await back(); // the same id again is the same message
    }
  }
  running.delete(mine);
}

/** Once there is a connection again, and not at once. */
async function back(): Promise<void> {
  await pause(link.value === "live" ? AGAIN : 250);
  if (link.value === "live") return;
  await new Promise<void>((done) => {
    const stop = link.subscribe((state) => {
      if (state === "live") {
        done();
        queueMicrotask(() => stop());
      }
    });
  });
}
