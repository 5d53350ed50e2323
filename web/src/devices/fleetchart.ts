/** The chart of the fleet: one metric of the devices that the list shows, live; whose alert fires is marked. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { many } from "../frame/format.ts";
import { Badge, Table, Time } from "../frame/parts.ts";
import { Drawing } from "./drawing.ts";
import { figure, when } from "./figures.ts";
import { type FleetLines, type Lines, LINES_MOST } from "./lines.ts";
import type { Row } from "./roll.ts";

/** Metrics to choose from, the most common: a fleet may make up new ones for ever. */
const METRICS_MOST = 100;

const chosen = signal("");

/** What is measured, by how many of the devices, the most first. */
function measured(rows: Iterable<Row>): string[] {
  const by = new Map<string, number>();
  for (const { values } of rows) for (const metric of values.keys()) by.set(metric, (by.get(metric) ?? 0) + 1);
  return [...by.keys()].sort((a, b) => by.get(b)! - by.get(a)! || a.localeCompare(b)).slice(0, METRICS_MOST);
}

export interface Drawn {
  /** The fleet's, and those of the list. */
  all: Row[];
  rows: Row[];
  firing: ReadonlyMap<string, number>;
  lines: Lines;
  /** Another one with each frame: between two of them the lines are as they were, whatever else is told. */
  nth: number;
  /** What the devices of the list measured is there: the most common metric is chosen, and stays. */
  known: boolean;
}

export function FleetChart({ all, rows, firing, lines, nth, known }: Drawn) {
  const metrics = measured(all);
  const kept = useRef("");
  const metric = [chosen.value, kept.current].find((one) => metrics.includes(one)) ?? metrics[0] ?? "";
  if (known) kept.current = metric;
  const measuring = rows.filter((one) => one.values.has(metric));
  const drawn = measuring.slice(0, LINES_MOST);
  const devices = drawn.map((one) => one.device);
  useEffect(() => lines.choose(metric, drawn), [metric, devices.join()]);
  const shown = useMemo(() => lines.shown(metric, devices), [nth, metric, devices.join()]);
  const fires = new Set(devices.filter((device) => firing.has(device)));
  return html`<div class="line fleet">
    <figure>
      <figcaption>
        <label>Metric <select value=${metric} onChange=${(event: Event) => (chosen.value = (event.target as HTMLSelectElement).value)}>
          ${[...metrics].sort((a, b) => a.localeCompare(b)).map((one) => html`<option value=${one} selected=${one === metric}>${one}</option>`)}
        </select></label>
        <span class="hint">the last 15 minutes, live; a gap is where none came</span>
      </figcaption>
      <${Drawing} kind="Several" lines=${shown} firing=${fires} label=${described(metric, shown, fires)} />
    </figure>
    <div class="rows" tabindex="0" role="region" aria-label="The lines as a table">
      ${drawn.length > 0 && html`<${Legend} rows=${drawn} metric=${metric} fires=${fires} />`}
      ${drawn.length < measuring.length &&
      html`<p class="hint">The first ${LINES_MOST} of ${measuring.length} by name; the filter chooses others.</p>`}
      ${drawn.length === 0 && html`<p class="hint">${metric ? `None of these devices measures ${metric}.` : "Nothing is measured yet."}</p>`}
    </div>
  </div>`;
}

/** What is to be seen, for who does not see it. */
function described(metric: string, { of }: FleetLines, fires: ReadonlySet<string>): string {
  const means = of.flatMap((one) => one.rows.map(({ mean }) => mean));
  const what = `${metric || "Nothing"} of ${many(of.length, "device")}, the last 15 minutes`;
  const range = means.length ? `from ${figure(Math.min(...means))} to ${figure(Math.max(...means))}` : "nothing came";
  return `${what}: ${range}${fires.size ? `; alerts fire at ${[...fires].join(", ")}` : ""}`;
}

/** What each line is, and was at last: the marks are as the lines are, in style.css. */
function Legend({ rows, metric, fires }: { rows: Row[]; metric: string; fires: ReadonlySet<string> }) {
  const last = (row: Row) => row.values.get(metric)!;
  return html`<${Table}
    caption="Lines of the chart, by device"
    rows=${rows}
    id=${(row: Row) => row.device}
    columns=${[
      {
        head: "Line",
        cell: (row: Row) => html`<span class="legend">
          <a href=${`#device/${row.device}/${metric}/15m`}><span class=${fires.has(row.device) ? "mark fires" : "mark"}></span>${rows.indexOf(row) + 1} <code>${row.device}</code></a>
          ${fires.has(row.device) && html` <${Badge} tone="bad">firing<//>`}</span>`,
      },
      { head: "At last", number: true, cell: (row: Row) => figure(last(row).value) },
      { head: "Measured", cell: (row: Row) => html`<${Time} at=${last(row).ts} as=${when} />` },
    ]}
  />`;
}
