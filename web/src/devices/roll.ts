/** The roll of the fleet: each device, whether it is there, and what it measured last; changed in place, and drawn later. */
import type { Event } from "../frame/live.ts";
import type { Device, Latest } from "./asked.ts";
import { readings } from "./readings.ts";

/** Devices that are known: as many as a registry holds. Who is heard beyond that is not listed. */
export const DEVICES_MOST = 10_000;
/** Last values of one device, as its own page has them: who has none of a metric has no line in the chart. */
export const VALUES_MOST = 200;

export interface Row extends Device {
  /** By metric; undefined until it was asked for, or heard. */
  values: Map<string, Latest>;
  asked: boolean;
}

interface Presence {
  online: boolean;
  since: number;
}

export class Roll {
  readonly rows = new Map<string, Row>();

  /** What the registry says: its devices, and nobody else. */
  put(devices: Device[]): void {
    const known = new Map(this.rows);
    this.rows.clear(); // so that who is new has its place in the order, too
    for (const one of devices) {
      const old = known.get(one.device);
      // A page of the registry may be older than what was told since.
      const newer = old && (old.since ?? 0) > (one.since ?? 0) ? { online: old.online, since: old.since } : {};
      this.rows.set(one.device, { ...one, ...newer, values: old?.values ?? new Map(), asked: old?.asked ?? false });
    }
  }

  presence({ topic, data }: Event): void {
    const row = this.rows.get(topic.split("/")[1]!);
    const { online, since } = data as Presence;
    if (row && since >= (row.since ?? 0)) Object.assign(row, { online, since });
  }

  telemetry({ topic, data, at }: Event): void {
    const row = this.rows.get(topic.split("/")[1]!);
    if (!row) return;
    row.seen = Math.max(row.seen ?? 0, at);
    for (const { ts, values } of readings(data, at)) for (const [metric, value] of values) last(row, { metric, ts, value });
  }

  latest(device: string, found: Latest[]): void {
    const row = this.rows.get(device);
    if (row) for (const one of found) last(row, one);
  }
}

/** The last value is the newest by event time, whenever it came. */
function last(row: Row, one: Latest): void {
  const old = row.values.get(one.metric);
  if (old ? old.ts <= one.ts : row.values.size < VALUES_MOST) row.values.set(one.metric, one);
}
