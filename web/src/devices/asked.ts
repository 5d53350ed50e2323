/** What the page asks of the fleet's services, and their answers. */
import { call } from "../frame/api.ts";
import { AHEAD_MOST } from "./readings.ts";
import type { Bucket } from "./series.ts";

export interface Device {
  device: string;
  state: "active" | "suspended";
  label: string;
  /** Absent until the device was born for the first time. */
  online: boolean | null;
  since: number | null;
  /** When its last message came. */
  seen: number | null;
}

export interface Latest {
  metric: string;
  ts: number;
  value: number;
}

export interface Loss {
  boot: string;
  first: number;
  last: number;
  received: number;
  doubled: number;
  lost: number;
  ts: number;
}

export type State = "firing" | "pending" | "resolved";

export interface Alert {
  rule: string;
  device: string;
  state: State;
  at: number;
  since: number;
  changed: number;
  value: number | null;
  acknowledged: string;
  comment: string;
}

export interface Rule {
  rule: string;
  kind: "above" | "below" | "silent";
  devices: string;
  metric: string;
  threshold: number | null;
  clear: number | null;
  for: number;
  after: number | null;
  severity: "info" | "warning" | "critical";
  channels: string[];
}

/** Items of one answer: the most that a service gives. */
const PAGE = 500;

export interface List<T> {
  items: T[];
  /** More are there than were asked for. */
  more: boolean;
}

/** A list, page by page, until `most` are there. */
export async function list<T>(path: string, most: number, more?: RequestInit): Promise<List<T>> {
  const items: T[] = [];
  let after: string | null = "";
  while (after !== null && items.length < most) {
    const at = new URLSearchParams({ limit: String(Math.min(PAGE, most)), ...(after && { after }) });
    const page: { items: T[]; next: string | null } = await call("GET", `${path}${path.includes("?") ? "&" : "?"}${at}`, undefined, more);
    items.push(...page.items);
    after = page.next;
  }
  return { items, more: after !== null };
}

/** What a device measured last: a value of each metric. */
export const latest = async (device: string) => (await list<Latest>(`devices/storage/${device}/latest`, PAGE)).items;

interface Point {
  ts: number;
  value: number;
}

/** Single readings that a chart draws; where there are more, it shows what those of each minute were. */
export const READINGS_MOST = 3000;
/** Minutes that a chart draws: those of a day, with some to spare. */
export const MINUTES_MOST = 1500;

export const MINUTE = 60_000;

export interface Past {
  /** Of a bucket in ms; 0 where these are single readings. */
  size: number;
  rows: Bucket[];
}

/** What storage has of a line since `begin`: single readings, or what they were in each minute where they are more than `most`. */
export async function past(device: string, metric: string, begin: number, most: number, more: RequestInit): Promise<Past> {
  const path = `devices/storage/${device}/series/${metric}?begin=${begin}&end=${Date.now() + AHEAD_MOST}`;
  const found = most > 0 && (await list<Point>(`${path}&level=raw`, most, more));
  if (found && !found.more)
    return { size: 0, rows: found.items.map(({ ts, value }) => ({ start: ts, count: 1, mean: value, min: value, max: value })) };
  return { size: MINUTE, rows: (await list<Bucket>(`${path}&points=${MINUTES_MOST}`, MINUTES_MOST, more)).items };
}
