/** A line that is kept full from storage: read at once, again when storage has what came as the page began to listen, and then for good. */
import { reason } from "../frame/api.ts";
import { MINUTE, MINUTES_MOST, past } from "./asked.ts";
import { Series } from "./series.ts";

/** When it is read again, in ms: once storage has what is on its way; then for good. */
const SETTLED = 5_000;
const AGAIN = 60_000;

export class Filled {
  series: Series;
  /** Why storage did not answer at last; empty where it did. */
  failed = "";
  #stop = new AbortController();
  #due: ReturnType<typeof setTimeout> | undefined;

  /** Of the last `span` ms: single readings where these are no more than `most`, else minutes; each answer is told. */
  constructor(
    readonly device: string,
    readonly metric: string,
    readonly span: number,
    readonly most: number,
    readonly changed: () => void,
  ) {
    this.series = this.#fresh(most ? 0 : MINUTE);
    document.addEventListener("visibilitychange", this.#seen);
    this.load();
  }

  load(): void {
    void this.#read(SETTLED);
  }

  end(): void {
    document.removeEventListener("visibilitychange", this.#seen);
    clearTimeout(this.#due);
    this.#stop.abort();
  }

  #seen = () => document.hidden || this.load();

  #fresh = (size: number) => new Series(size, size ? MINUTES_MOST : this.most);

  #next(after: number): void {
    clearTimeout(this.#due);
    this.#due = setTimeout(() => this.#read(AGAIN), after);
  }

  async #read(after: number): Promise<void> {
    this.#next(after);
    if (document.hidden) return;
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const now = Date.now();
    try {
      const found = await past(this.device, this.metric, now - this.span, this.most, { signal });
      if (found.size !== this.series.size) this.series = this.#fresh(found.size);
      for (const one of found.rows) this.series.put(one, now - SETTLED);
      this.failed = "";
    } catch (error) {
      if (signal.aborted) return;
      this.failed = reason(error);
      this.#next(SETTLED);
    }
    this.changed();
  }
}
