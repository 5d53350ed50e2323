/** A line in time: readings, or what those of each minute were; of one that is not over, whoever knows more readings is right. */

export interface Bucket {
  start: number;
  count: number;
  mean: number;
  min: number;
  max: number;
}

/** Columns of a chart: time in ms, mean, least, most. A gap in the data is a row without values. */
export type Columns = [number[], (number | null)[], (number | null)[], (number | null)[]];

/** Readings that stay away before it is a gap: one that is lost is told by the losses, and tears no line. */
const AWAY = 3.5;

export class Series {
  #known = new Map<number, Bucket>();
  /** Of those, what this page has added up by itself, from what it heard live; and when it heard the last of it. */
  #heard = new Map<number, Bucket & { came: number }>();

  /** Of buckets of `size` ms, or of single readings where that is 0; the newest `most` are kept. */
  constructor(
    readonly size: number,
    readonly most: number,
  ) {}

  /**
   * Take what storage or analytics say. Storage may be behind what was heard live, and what was heard live does not
   * hold what came before: the one that counts more readings has all of the other's. Late data counts up. What was
   * heard twice (a device that sends again) storage counts once: of what was all heard before `settled` it is right.
   */
  put(bucket: Bucket, settled = 0): void {
    const old = this.#known.get(bucket.start);
    const came = this.#heard.get(bucket.start)?.came ?? 0;
    if (old === undefined || bucket.count >= old.count || came < settled) this.#known.set(bucket.start, bucket);
    // Twice as many before they are sorted, so that this costs little; a tab that is hidden draws, and sorts, nothing.
    if (this.#known.size > 2 * this.most) this.#forget();
  }

  /** Take one reading that was heard live. */
  add(ts: number, value: number): void {
    const start = this.size ? Math.floor(ts / this.size) * this.size : ts;
    const old = this.size ? this.#heard.get(start) : undefined;
    const count = (old?.count ?? 0) + 1;
    const mean = old ? old.mean + (value - old.mean) / count : value;
    const bucket = { start, count, mean, min: Math.min(old?.min ?? value, value), max: Math.max(old?.max ?? value, value) };
    if (this.size) this.#heard.set(start, { ...bucket, came: Date.now() });
    this.put(bucket);
  }

  #forget(): void {
    const kept = [...this.#known.keys()].sort((a, b) => b - a).slice(0, this.most);
    this.#known = new Map(kept.map((start) => [start, this.#known.get(start)!]));
    for (const start of this.#heard.keys()) if (!this.#known.has(start)) this.#heard.delete(start);
  }

  /** What is known from `begin` on, the oldest first; what is older is forgotten. */
  since(begin: number): Bucket[] {
    for (const start of this.#known.keys())
      if (start + this.size < begin) {
        this.#known.delete(start);
        this.#heard.delete(start);
      }
    return [...this.#known.values()].sort((a, b) => a.start - b.start).slice(-this.most);
  }
}

/** How far apart two neighbours may be: `AWAY` times their usual distance. */
export function gap(rows: Bucket[], size: number): number {
  if (size) return 1.5 * size;
  const apart = rows.slice(1).map((one, n) => one.start - rows[n]!.start).sort((a, b) => a - b);
  return AWAY * (apart[Math.floor(apart.length / 2)] ?? Infinity);
}

export function columns(rows: Bucket[], size: number): Columns {
  const made: Columns = [[], [], [], []];
  const most = gap(rows, size);
  let before = Infinity;
  for (const { start, mean, min, max } of rows) {
    if (start - before > most) push(made, before + most / 2, [null, null, null]);
    push(made, start, [mean, size ? min : null, size ? max : null]);
    before = start;
  }
  return made;
}

function push(made: Columns, at: number, values: [number | null, number | null, number | null]): void {
  made[0].push(at);
  made[1].push(values[0]);
  made[2].push(values[1]);
  made[3].push(values[2]);
}
