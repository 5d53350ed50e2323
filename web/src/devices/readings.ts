/** What a device said: the readings of one message, as the services of the fleet read them. */

export interface Reading {
  /** Event time, in ms since 1970. */
  ts: number;
  values: [metric: string, value: number][];
}

/** Ids that are known, so that what comes twice counts once: the SDK repeats some after a cut. */
const IDS_MOST = 1000;

/** Whether an id comes for the first time. */
export function once(): (id: string) => boolean {
  const known = new Set<string>();
  return (id) => {
    if (known.has(id)) return false;
    known.add(id);
    if (known.size > IDS_MOST) known.delete(known.values().next().value!);
    return true;
  };
}

/** The services' own bounds: what they refuse is no point of a line that they keep. */
const PAST_MOST = 7 * 86_400_000;
export const AHEAD_MOST = 300_000;
const METRIC = /^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$/;
const RESERVED = new Set(["ts", "boot", "seq"]);

/** The readings of `payload`, which reached the gateway at `at`; none where one of them is bad, which spoils the message. */
export function readings(payload: unknown, at: number): Reading[] {
  const found: Reading[] = [];
  for (const item of Array.isArray(payload) ? payload : [payload]) {
    const reading = read(item, at);
    if (reading === undefined) return [];
    found.push(reading);
  }
  return found;
}

function read(item: unknown, at: number): Reading | undefined {
  if (!isObject(item)) return undefined;
  const ts = item.ts ?? at;
  if (!Number.isInteger(ts) || (ts as number) < at - PAST_MOST || (ts as number) > at + AHEAD_MOST) return undefined;
  const bare = item.m === undefined;
  const measured = bare ? item : item.m;
  if (!isObject(measured)) return undefined;
  const values: Reading["values"] = [];
  for (const [metric, value] of Object.entries(measured)) {
    const number = typeof value === "boolean" ? Number(value) : value;
    if (bare && (RESERVED.has(metric) || typeof number !== "number")) continue;
    if (typeof number !== "number" || !METRIC.test(metric)) return undefined;
    values.push([metric, number]);
  }
  return values.length ? { ts: ts as number, values } : undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
