/** Where somebody is on this page, as its address says: `#device/NAME/METRIC/RANGE`, or a view. */
import { signal } from "@preact/signals";

export const RANGES = { "15m": ["15 minutes", 900_000], "1h": ["1 hour", 3_600_000], "24h": ["24 hours", 86_400_000] } as const;
export type Range = keyof typeof RANGES;

export interface Place {
  device: string;
  metric: string;
  range: Range;
}

/** As the fleet names devices and metrics: nothing that an address would have to escape. */
const ADDRESS = /^#device\/([a-z0-9][a-z0-9._-]{0,62})(?:\/([A-Za-z0-9_][A-Za-z0-9_.:-]{0,63})\/(15m|1h|24h))?$/;

function read(): Place | undefined {
  const [, device, metric = "", range = "15m"] = ADDRESS.exec(location.hash) ?? [];
  return device === undefined ? undefined : { device, metric, range: range as Range };
}

export const place = signal(read());
addEventListener("hashchange", () => (place.value = read()));

/** Another metric or range of the same device: the way back leads to where one came from. */
export function turn(to: Place): void {
  if (to.metric) history.replaceState(null, "", `#device/${to.device}/${to.metric}/${to.range}`);
  place.value = to;
}
