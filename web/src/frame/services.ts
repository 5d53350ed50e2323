/** Services as the groups API tells of them, each summed over its partitions; and a word to let one rest. */
import { announce } from "./announce.ts";
import { call } from "./api.ts";

interface State {
  partition: string;
  group: string;
  cursor: number;
  top: number;
  lag: number;
  parked: number;
  oldest: number;
  holder: string;
  paused: boolean;
}

export interface Service {
  group: string;
  /** Events that it has not looked at yet, and those that wait for another try. */
  lag: number;
  parked: number;
  /** Partitions that a worker of it holds. */
  held: number;
  workers: number;
  paused: boolean;
  partitions: State[];
}

/** Every service that has begun, by name. */
export async function services(): Promise<Service[]> {
  const { groups } = await call<{ groups: State[] }>("GET", "groups");
  const found = new Map<string, State[]>();
  for (const one of groups) found.set(one.group, [...(found.get(one.group) ?? []), one]);
  return [...found]
    .map(([group, partitions]) => ({
      group,
      partitions,
      lag: partitions.reduce((sum, one) => sum + one.lag, 0),
      parked: partitions.reduce((sum, one) => sum + one.parked, 0),
      held: partitions.filter((one) => one.holder).length,
      workers: new Set(partitions.map((one) => one.holder).filter(Boolean)).size,
      paused: partitions.some((one) => one.paused),
    }))
    .sort((a, b) => a.group.localeCompare(b.group));
}

/** Let a service rest, or go on where it rests. */
export async function turn({ group, paused }: Service): Promise<void> {
  await call("POST", `groups/${encodeURIComponent(group)}/${paused ? "resume" : "pause"}`);
  announce(`${group} is ${paused ? "resumed" : "paused"}`);
}
