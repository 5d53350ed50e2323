/** The lines of the fleet: one metric of a few devices, each filled from storage, and by what comes live. */
import type { Event } from "../frame/live.ts";
import { Filled } from "./filled.ts";
import { RANGES } from "./place.ts";
import { once, readings } from "./readings.ts";
import type { Row } from "./roll.ts";
import type { Bucket } from "./series.ts";

/** Lines of one chart: more are a tangle. */
export const LINES_MOST = 12;
/** Single readings of a line, one a second and some to spare; where there are more it is minutes. */
const POINTS_MOST = 1000;
const SPAN = RANGES["15m"][1];

export interface FleetLine {
  device: string;
  rows: Bucket[];
  size: number;
}

/** What is drawn: from `begin` to `end`, in ms. */
export interface FleetLines {
  of: FleetLine[];
  begin: number;
  end: number;
}

export class Lines {
  #of = new Map<string, Filled>();
  #first = once();

  constructor(readonly changed: () => void) {}

  /** Be the lines of these devices: those that were there stay as they are. */
  choose(metric: string, rows: Row[]): void {
    for (const [device, line] of this.#of)
      if (line.metric !== metric || !rows.some((row) => row.device === device)) {
        line.end();
        this.#of.delete(device);
      }
    for (const { device, values } of rows) {
      if (this.#of.has(device)) continue;
      const line = new Filled(device, metric, SPAN, POINTS_MOST, this.changed);
      // What made it a line may have come a moment ago, and not be in storage yet.
      const last = values.get(metric);
      if (last) line.series.add(last.ts, last.value);
      this.#of.set(device, line);
    }
    this.changed();
  }

  hear({ topic, id, data, at }: Event): void {
    const line = this.#of.get(topic.split("/")[1]!);
    if (line === undefined || !this.#first(id)) return;
    for (const { ts, values } of readings(data, at))
      for (const [metric, value] of values) if (metric === line.metric) line.series.add(ts, value);
  }

  /** Live stands, for the first time or again: what came before that is in storage, or soon will be. */
  load(): void {
    for (const line of this.#of.values()) line.load();
  }

  end(): void {
    for (const line of this.#of.values()) line.end();
    this.#of.clear();
  }

  get failed(): string {
    return [...this.#of.values()].find((one) => one.failed)?.failed ?? "";
  }

  /** In the order of `devices`; who has no line of `metric` yet has an empty one. */
  shown(metric: string, devices: string[]): FleetLines {
    const now = Date.now();
    const of = devices.map((device) => {
      const line = this.#of.get(device);
      const series = line?.metric === metric ? line.series : undefined;
      return { device, rows: series?.since(now - SPAN) ?? [], size: series?.size ?? 0 };
    });
    // A device's clock may run ahead of ours.
    return { of, begin: now - SPAN, end: Math.max(now, ...of.map((one) => one.rows.at(-1)?.start ?? 0)) };
  }
}
