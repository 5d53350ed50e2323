/** What was measured, and how long ago, as people read it. */
import { clock, date, many, span } from "../frame/format.ts";
import { now } from "./frames.ts";

const small = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
const large = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export const figure = (value: number): string => (Math.abs(value) < 1000 ? small : large).format(value);

/** Age in ms from which a last value is called stale: as storage calls it. */
const STALE_AFTER = 300_000;
export const stale = (ts: number): boolean => now.value - ts > STALE_AFTER;

/** How long ago: a clock that runs ahead of ours is of now. */
export const ago = (ts: number): string => `${span((now.value - ts) / 1000)} ago`;

const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
export const minute = (ts: number): string => minutes.format(ts);

/** The time of today, else with its day. */
export const when = (ts: number): string => (new Date(ts).toDateString() === new Date(now.value).toDateString() ? clock(ts) : date(ts));

/** So many seconds, in the largest unit that says it exactly. */
export function lasting(seconds: number): string {
  const [name, size] = ([["day", 86_400], ["hour", 3600], ["minute", 60]] as const).find(([, size]) => seconds % size === 0) ?? ["second", 1];
  return many(seconds / size, name);
}
