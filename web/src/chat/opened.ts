/** A room that is looked at: its past and what is live joined without a hole, who is here, who writes, what is read. */
import { signal } from "@preact/signals";
import { UnauthorizedError } from "centrifuge";
import { Problem, reason } from "../frame/api.ts";
import { connected } from "../frame/live.ts";
import { me } from "../frame/session.ts";
import { forget, seen } from "./outbox.ts";
import * as routes from "./routes.ts";
import { Timeline } from "./timeline.ts";

/** Entries in the page while one is at the end: beyond, the oldest are asked for again when somebody goes back to them. */
const MOST = 600;
/** Questions after which what was missed is too much to be read one after the other: the room begins at its end. */
const MISSED = 5;
/** For how long somebody writes who said so, and how often we say so. */
const WRITES = 5_000;
const SAY_WRITES = 3_000;
const SOON = 400;
const AGAIN = 2_000;

export class Opened {
  readonly timeline = new Timeline();
  /** Counts the changes of the timeline. */
  readonly turn = signal(0);
  readonly room = signal<routes.Room | undefined>(undefined);
  readonly members = signal<routes.Member[]>([]);
  readonly here = signal<string[]>([]);
  readonly writing = signal<string[]>([]);
  /** Why it cannot be shown as it is; empty where it can. */
  readonly failed = signal("");
  /** Why nothing comes by itself; empty where it does. */
  readonly unheard = signal("");
  /** There is no such room for us, or no more. */
  readonly gone = signal(false);
  /** Up to where was read when it was opened; the line "New" is there. */
  readonly readThen = signal<number | undefined>(undefined);

  private over = false;
  private filling = false;
  /** Asked for once more while it was under way: that may have read before what is missing was said. */
  private refill = false;
  private stops: (() => void)[] = [];
  private timers: Record<string, ReturnType<typeof setTimeout>> = {};
  private wrote = 0;
  private wasRead = 0;

  constructor(readonly id: string) {}

  /** Heard of each message of others that comes while we look. */
  heard: (entry: routes.Entry) => void = () => undefined;

  start(): void {
    this.watch("messages", { recoverable: true, joinLeave: true }, (data) => this.take(data as routes.Entry, true));
    this.watch("typing", {}, (data) => this.writes((data as { user: string }).user));
    void this.look();
    void this.fill();
  }

  stop(): void {
    this.over = true;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    for (const stop of this.stops) stop();
  }

  nameOf(user: string): string {
    return this.members.value.find((one) => one.user === user)?.name || user;
  }

  /** Ask again what this room is, and who is in it. */
  async look(): Promise<void> {
    try {
      const [room, members] = await Promise.all([routes.one(this.id), routes.members(this.id)]);
      if (this.over) return;
      this.readThen.value ??= room.role === "none" ? room.seq : room.read_seq;
      this.wasRead = Math.max(this.wasRead, room.read_seq);
      this.room.value = room;
      this.members.value = members;
    } catch (error) {
      this.wrong(error, "look");
    }
  }

  /** Fetch what is missing: the end of the room at first, then whatever came behind what we have. */
  async fill(): Promise<void> {
    if (this.over) return;
    if (this.filling) {
      this.refill = true;
      return;
    }
    this.filling = true;
    this.refill = false;
    try {
      for (let n = 0; ; n++) {
        const begin = this.timeline.top < 0 || n === MISSED;
        const page = begin ? await routes.history(this.id, undefined, true) : await routes.history(this.id, this.timeline.top);
        if (this.over) return;
        if (begin) this.timeline.begin(page.items);
        else for (const entry of page.items) this.timeline.take(entry);
        this.changed();
        if (begin || page.next === null) break;
      }
      this.failed.value = "";
    } catch (error) {
      this.wrong(error, "fill");
    } finally {
      this.filling = false;
    }
    // What came live while we asked may be behind another hole.
    if (this.timeline.hole || this.refill) this.later("fill", this.refill ? 0 : SOON, () => this.fill());
  }

  /** Go back; true where there was more. */
  async older(): Promise<boolean> {
    if (this.timeline.low <= 1) return false;
    try {
      const page = await routes.history(this.id, this.timeline.low, true);
      this.timeline.before(page.items);
      this.failed.value = "";
      this.changed();
      return page.items.length > 0;
    } catch (error) {
      this.failed.value = reason(error); // whoever wants it asks again
      return false;
    }
  }

  /** The end is shown, also in a tab that nobody looks at: what is far above is not. */
  atEnd(): void {
    this.timeline.trim(MOST);
  }

  /** Somebody sees the end: what is there is read. */
  seen(): void {
    this.atEnd();
    if (this.room.value === undefined || this.room.value.role === "none" || this.timeline.top <= this.wasRead) return;
    this.later("read", SOON, async () => {
      const top = this.timeline.top;
      if (top <= this.wasRead) return;
      await routes.read(this.id, top);
      this.wasRead = top;
    });
  }

  /** Somebody types here. */
  types(): void {
    const now = Date.now();
    if (now - this.wrote < SAY_WRITES || this.room.value?.role === "none") return;
    this.wrote = now;
    routes.typing(this.id).catch(() => undefined); // nothing is lost by it
  }

  /** Asked again each time that somebody comes or goes. */
  private async present(): Promise<void> {
    this.here.value = await routes.presence(this.id);
  }

  private take(entry: routes.Entry, live: boolean): void {
    const fresh = this.timeline.take(entry);
    if (this.timeline.hole) this.later("fill", 0, () => this.fill());
    if (fresh && live) {
      this.quiet(entry.author);
      if (entry.kind === "joined" || entry.kind === "left") this.later("look", SOON, () => this.look());
      if (entry.kind === "message" && entry.author !== me.value?.name) this.heard(entry);
    }
    this.changed();
  }

  private changed(): void {
    forget(new Set(this.timeline.entries.flatMap((one) => (one.author === me.value?.name && one.id ? [one.id] : []))));
    seen(this.id, this.timeline.top);
    this.turn.value++;
  }

  private writes(user: string): void {
    if (user === me.value?.name) return;
    if (!this.writing.value.includes(user)) this.writing.value = [...this.writing.value, user];
    this.later(`writes ${user}`, WRITES, () => this.quiet(user));
  }

  private quiet(user: string): void {
    this.writing.value = this.writing.value.filter((one) => one !== user);
  }

  private watch(name: string, how: object, heard: (data: unknown) => void): void {
    const sdk = connected();
    const channel = `chat/rooms/${this.id}/${name}`;
    const getToken = async () => {
      try {
        return await routes.token(this.id, channel);
      } catch (error) {
        // No member any more; anything else the SDK asks again.
        if (error instanceof Problem && (error.status === 403 || error.status === 404)) throw new UnauthorizedError("");
        throw error;
      }
    };
    const one = sdk.newSubscription(channel, { ...how, getToken });
    one.on("publication", ({ data }) => heard(data));
    if (name === "messages") {
      const look = () => this.later("present", SOON, () => this.present());
      one.on("subscribed", () => {
        this.unheard.value = "";
        look();
        void this.fill(); // what was missed, and what the gateway no longer has
      });
      one.on("join", look).on("leave", look);
      // The SDK asks again. A token that is not renewed yet cuts nothing off, and nothing would take that back.
      one.on("error", ({ type, error }) => type.startsWith("refresh") || (this.unheard.value = error.message));
    }
    one.on("unsubscribed", ({ code }) => code > 0 && this.later(`back ${name}`, SOON, () => this.back(one)));
    one.subscribe();
    this.stops.push(() => {
      one.removeAllListeners();
      one.unsubscribe();
      sdk.removeSubscription(one);
    });
  }

  /** Cut off: sent out, or let in again meanwhile. */
  private async back(one: { subscribe(): void }): Promise<void> {
    await this.look();
    if (!this.gone.value) one.subscribe();
  }

  private wrong(error: unknown, what: "look" | "fill"): void {
    if (this.over) return;
    if (error instanceof Problem && error.status === 404) this.gone.value = true;
    else {
      this.failed.value = reason(error);
      this.later(what, AGAIN, () => this[what]());
    }
  }

  private later(what: string, ms: number, then: () => void | Promise<void>): void {
    clearTimeout(this.timers[what]);
    this.timers[what] = setTimeout(() => {
      // Asked again with the next change; the connection's own state is shown above.
      if (!this.over) void Promise.resolve(then()).catch(() => undefined);
    }, ms);
  }
}
