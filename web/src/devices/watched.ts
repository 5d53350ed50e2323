/** One device as it is watched: its last values, and one line of them in time; the past by HTTP, and what comes live. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { type Event, subscribe } from "../frame/live.ts";
import { type Latest, latest as readLatest, READINGS_MOST } from "./asked.ts";
import { Filled } from "./filled.ts";
import { useFrames, useSeconds } from "./frames.ts";
import { type Place, RANGES } from "./place.ts";
import { once, readings } from "./readings.ts";
import { useAsked } from "./reconnecting.ts";
import { VALUES_MOST } from "./roll.ts";
import type { Bucket } from "./series.ts";

/** Least ms between two drawings: what changes faster nobody reads. */
const PAUSE = 100;
/** When the last values are asked for again, in ms. */
const AGAIN = 60_000;

export interface Window extends Bucket {
  end: number;
  p50: number;
  p99: number;
  score: number | null;
  unusual: boolean;
  revision: number;
}

/** What is drawn: from `begin` to `end`, in ms. */
export interface Line {
  metric: string;
  rows: Bucket[];
  size: number;
  begin: number;
  end: number;
}

export interface Watched {
  metric: string;
  latest: Signal<Latest[] | undefined>;
  line: Signal<Line | undefined>;
  /** The last window that analytics told since the page listens. */
  told: Signal<Window | undefined>;
  failed: string;
}

export function useWatched({ device, metric: wanted, range }: Place): Watched {
  const latest = useSignal<Latest[] | undefined>(undefined);
  const line = useSignal<Line | undefined>(undefined);
  const told = useSignal<Window | undefined>(undefined);
  const unheard = useSignal("");
  const untold = useSignal("");
  const unread = useSignal("");
  const known = useMemo(() => ({ latest: new Map<string, Latest>(), first: once() }), []);
  const drawn = useRef<Filled | undefined>(undefined);
  const metric = wanted || latest.value?.[0]?.metric || "";
  const span = RANGES[range][1];

  const draw = useFrames(() => {
    if (asked.value.value) latest.value = [...known.latest.values()].sort((a, b) => a.metric.localeCompare(b.metric));
    if (!drawn.current) return;
    const { series } = drawn.current;
    const end = Date.now();
    const rows = series.since(end - span);
    // A device's clock may run ahead of ours.
    line.value = { metric, rows, size: series.size, begin: end - span, end: Math.max(end, rows.at(-1)?.start ?? 0) };
  }, PAUSE);
  useSeconds(draw);

  const take = (one: Latest) => {
    const old = known.latest.get(one.metric);
    if (old ? old.ts <= one.ts : known.latest.size < VALUES_MOST) known.latest.set(one.metric, one);
  };
  const asked = useAsked(async () => {
    for (const one of await readLatest(device)) take(one);
    draw();
    return true;
  }, AGAIN);

  const hear = useRef((_: Event) => {});
  hear.current = ({ id, data, at }) => {
    if (!known.first(id)) return;
    for (const { ts, values } of readings(data, at))
      for (const [name, value] of values) {
        take({ metric: name, ts, value });
        if (name === metric) drawn.current?.series.add(ts, value);
      }
    draw();
  };
  useEffect(
    () =>
      subscribe(`devices/${device}/telemetry`, (event) => hear.current(event), (why) => {
        unheard.value = why;
        // It stands, for the first time or again: what came before that is in storage, or soon will be.
        if (!why) drawn.current?.load();
      }),
    [],
  );

  useEffect(() => {
    if (!metric) return;
    told.value = line.value = undefined;
    const filled = new Filled(device, metric, span, span <= RANGES["15m"][1] ? READINGS_MOST : 0, () => {
      unread.value = filled.failed;
      draw();
    });
    drawn.current = filled;
    const end = subscribe(
      `devices/${device}/windows/${metric}`,
      ({ data }) => {
        const window = data as Window;
        if (filled.series.size) filled.series.put(window);
        if (window.start >= (told.value?.start ?? 0)) told.value = window;
        draw();
      },
      (why) => (untold.value = why),
    );
    return () => {
      filled.end();
      end();
    };
  }, [metric, span]);

  return { metric, latest, line, told, failed: unread.value || asked.error.value || unheard.value || untold.value };
}
