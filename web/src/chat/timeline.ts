/** What a page knows of a room: one run of numbers without a hole, whatever comes twice, late or out of order. */
import type { Entry } from "./routes.ts";

export class Timeline {
  /** Everything from `low` to `top` is known; nothing is where `top` is -1. */
  low = 0;
  top = -1;
  private known = new Map<number, Entry>();
  /** Behind a hole: shown once that is filled. */
  private ahead = new Map<number, Entry>();

  /** Entries in order. */
  get entries(): Entry[] {
    return this.top < 0 ? [] : Array.from({ length: this.top - this.low + 1 }, (_, n) => this.known.get(this.low + n)!);
  }

  get hole(): boolean {
    return this.ahead.size > 0;
  }

  /** Begin with the end of the room, the newest first; what came live meanwhile goes on from there. */
  begin(newest: Entry[]): void {
    this.known = new Map(newest.map((one) => [one.seq, one]));
    this.top = newest[0]?.seq ?? 0;
    this.low = newest.at(-1)?.seq ?? 1;
    this.settle();
  }

  /** Go back: what is before `low`, the newest first. */
  before(older: Entry[]): void {
    for (const one of older)
      if (one.seq === this.low - 1) {
        this.known.set(one.seq, one);
        this.low = one.seq;
      }
  }

  /** Take what came live or was asked for; true where it is new here. What changed it has a number of its own. */
  take(entry: Entry): boolean {
    const fresh = entry.seq > this.top && !this.ahead.has(entry.seq);
    if (fresh) this.ahead.set(entry.seq, entry);
    this.settle();
    return fresh;
  }

  /** Forget the oldest beyond `most`: they can be asked for again. */
  trim(most: number): void {
    for (; this.top - this.low >= most; this.low++) this.known.delete(this.low);
  }

  private settle(): void {
    if (this.top < 0) return;
    for (const seq of this.ahead.keys()) if (seq <= this.top) this.ahead.delete(seq);
    for (let next; (next = this.ahead.get(this.top + 1)); ) {
      this.ahead.delete(next.seq);
      this.known.set(next.seq, next);
      this.top = next.seq;
      this.change(next);
    }
  }

  /** A message is what was made of it last. */
  private change({ kind, of = 0, seq, text }: Entry): void {
    const target = this.known.get(of);
    if (target === undefined || target.deleted) return;
    if (kind === "deleted") {
      const { text: _, ...rest } = target;
      this.known.set(of, { ...rest, deleted: true });
    } else if (kind === "edited" && seq > (target.edited ?? 0)) {
      this.known.set(of, { ...target, ...(text !== undefined && { text }), edited: seq });
    }
  }
}
