/** One device as it is watched: its last values, and one line of them in time; the past by HTTP, and what comes live. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { reason } from "../frame/api.ts";
import { type Event, subscribe } from "../frame/live.ts";
import { type Latest, latest as readLatest, MINUTE, MINUTES_MOST, past, READINGS_MOST } from "./asked.ts";
import { useFrames, useSeconds } from "./frames.ts";
import { type Place, RANGES } from "./place.ts";
import { readings } from "./readings.ts";
import { useAsked } from "./reconnecting.ts";
import { type Bucket, Series } from "./series.ts";

/** Ids that are known, so that what comes twice counts once: the SDK repeats some after a cut. */
const IDS_MOST = 1000;
/** Metrics of a device, as storage takes them; a device that makes up new ones for ever is not listed whole. */
const METRICS_MOST = 200;
/** Least ms between two drawings: what changes faster nobody reads. */
const PAUSE = 100;
/** When the line is asked for again, in ms: once storage has what came as this page began to listen; then for good. */
const SETTLED = 5_000;
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
  const unread = useSignal("");
  const known = useMemo(() => ({ latest: new Map<string, Latest>(), ids: new Set<string>() }), []);
  const series = useRef(new Series(0, 0));
  const load = useRef(() => {});
  const metric = wanted || latest.value?.[0]?.metric || "";
  const span = RANGES[range][1];

  const draw = useFrames(() => {
    if (asked.value.value) latest.value = [...known.latest.values()].sort((a, b) => a.metric.localeCompare(b.metric));
    const end = Date.now();
    const rows = series.current.since(end - span);
    // A device's clock may run ahead of ours.
    line.value = { metric, rows, size: series.current.size, begin: end - span, end: Math.max(end, rows.at(-1)?.start ?? 0) };
  }, PAUSE);
  useSeconds(draw);

  const take = (one: Latest) => {
    const old = known.latest.get(one.metric);
    if (old ? old.ts <= one.ts : known.latest.size < METRICS_MOST) known.latest.set(one.metric, one);
  };
  const asked = useAsked(async () => {
    for (const one of await readLatest(device)) take(one);
    draw();
    return true;
  }, AGAIN);

  const hear = useRef((_: Event) => {});
  hear.current = ({ id, data, at }) => {
    if (known.ids.has(id)) return;
    known.ids.add(id);
    if (known.ids.size > IDS_MOST) known.ids.delete(known.ids.values().next().value!);
    for (const { ts, values } of readings(data, at))
      for (const [name, value] of values) {
        take({ metric: name, ts, value });
        if (name === metric) series.current.add(ts, value);
      }
    draw();
  };
  useEffect(
    () =>
      subscribe(`devices/${device}/telemetry`, (event) => hear.current(event), (why) => {
        unheard.value = why;
        // It stands, for the first time or again: what came before that is in storage, or soon will be.
        if (!why) load.current();
      }),
    [],
  );

  useEffect(() => {
    if (!metric) return;
    told.value = line.value = undefined;
    const raw = span <= RANGES["15m"][1];
    const fresh = (size: number) => new Series(size, size ? MINUTES_MOST : READINGS_MOST);
    series.current = fresh(raw ? 0 : MINUTE);
    let stop = new AbortController();
    let due: ReturnType<typeof setTimeout> | undefined;
    const read = async (after: number) => {
      clearTimeout(due);
      due = setTimeout(() => read(AGAIN), after);
      if (document.hidden) return;
      stop.abort();
      stop = new AbortController();
      const { signal } = stop;
      try {
        const found = await past(device, metric, Date.now() - span, raw, { signal });
        if (found.size !== series.current.size) series.current = fresh(found.size);
        for (const one of found.rows) series.current.put(one);
        unread.value = "";
      } catch (error) {
        if (signal.aborted) return;
        unread.value = reason(error);
        clearTimeout(due);
        due = setTimeout(() => read(AGAIN), SETTLED);
      }
      draw();
    };
    load.current = () => void read(SETTLED);
    load.current();
    const seen = () => document.hidden || load.current();
    document.addEventListener("visibilitychange", seen);
    const end = subscribe(
      `devices/${device}/windows/${metric}`,
      ({ data }) => {
        const window = data as Window;
        if (series.current.size) series.current.put(window);
        if (window.start >= (told.value?.start ?? 0)) told.value = window;
        draw();
      },
      (why) => (unheard.value = why),
    );
    return () => {
      load.current = () => {};
      document.removeEventListener("visibilitychange", seen);
      clearTimeout(due);
      stop.abort();
      end();
    };
  }, [metric, span]);

  return { metric, latest, line, told, failed: unread.value || asked.error.value || unheard.value };
}
