/** One device: its line as it grows, its last values, what was lost, and what is wrong with it. */
import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import { call, Problem } from "../frame/api.ts";
import { clock, count, many } from "../frame/format.ts";
import { Badge, Empty, Table, Time } from "../frame/parts.ts";
import { SEVERITY, useAlerts } from "./alarms.ts";
import { type Alert, type Device as Known, type Latest, type Loss, list } from "./asked.ts";
import { Drawing } from "./drawing.ts";
import { ago, figure, minute, when } from "./figures.ts";
import { Age, Presence } from "./fleet.ts";
import { type Place, type Range, RANGES, turn } from "./place.ts";
import { Trouble, useAsked, useHeard } from "./reconnecting.ts";
import type { Bucket } from "./series.ts";
import { Settings } from "./settings.ts";
import { type Line, useWatched, type Window } from "./watched.ts";

/** Rows of the table beside the chart: the newest; all of them are what the HTTP route is for. */
const ROWS = 100;
/** Starts of the device whose losses are shown. */
const STARTS = 10;

/** What the registry knows of it; who measures without being there is no failure. */
async function registered(device: string): Promise<{ found?: Known }> {
  try {
    return { found: await call<Known>("GET", `devices/registry/${device}`) };
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return {};
    throw error;
  }
}

function usePresence(device: string) {
  const { value, error, unheard } = useHeard(`devices/${device}/presence`, () => registered(device), 15_000);
  return { device: value.value, failed: error.value || unheard.value };
}

export function Device({ of }: { of: Place }) {
  const { device } = of;
  const there = usePresence(device);
  const { metric, latest, line, told, failed } = useWatched(of);
  const losses = useAsked(() => list<Loss>(`devices/storage/${device}/losses`, STARTS), 5000);
  const alerts = useAlerts(["firing"]);
  const title = useRef<HTMLHeadingElement>(null);
  // Whoever chose it by keyboard goes on from here.
  useEffect(() => title.current?.focus(), []);
  const firing = alerts.value.value?.firing.items.filter((one) => one.device === device) ?? [];
  const troubled = failed || there.failed || losses.error.value || alerts.error.value;
  return html`<section aria-labelledby="device">
      <p class="back"><a href="#fleet">← All devices</a></p>
      <div class="heading">
        <h2 id="device" tabindex="-1" ref=${title}>${device}</h2>
        ${there.device?.found && html`<${Presence} of=${there.device.found} /><span class="hint">${there.device.found.label}</span>`}
        ${there.device && !there.device.found && html`<${Badge} tone="warn">not in the registry<//>`}
        ${firing.map((one) => html`<${Firing} of=${one} />`)}
      </div>
      <${Trouble} text=${troubled} />
      <${Choice} of=${{ ...of, metric }} metrics=${latest.value?.map((one) => one.metric) ?? []} />
      ${latest.value?.length === 0 && html`<${Empty}>It measured nothing yet. What it sends appears here at once.<//>`}
      ${line.value && html`<${Drawn} line=${line.value} device=${device} range=${of.range} />`}
    </section>
    <div class="halves">
      <section aria-labelledby="latest">
        <h3 id="latest">Last values</h3>
        ${latest.value && html`<${LastValues} of=${latest.value} />`}
      </section>
      <section aria-labelledby="window">
        <h3 id="window">Last minute of ${metric || "it"}</h3>
        <${LastWindow} of=${told.value} />
        <h3>Losses</h3>
        ${losses.value.value && html`<${Losses} of=${losses.value.value.items} />`}
      </section>
    </div>
    <${Settings} device=${device} />`;
}

const Firing = ({ of }: { of: Alert }) =>
  html`<a class="bare" href="#alerts"><${Badge} tone=${SEVERITY.critical}>${of.rule} fires${of.acknowledged && ", acknowledged"}<//></a>`;

function Choice({ of, metrics }: { of: Place; metrics: string[] }) {
  // One that is asked for by the address is there, whatever came so far.
  const all = !of.metric || metrics.includes(of.metric) ? metrics : [of.metric, ...metrics];
  return html`<form class="filter" aria-label="What the chart shows" onSubmit=${(event: Event) => event.preventDefault()}>
    <label>Metric <select value=${of.metric} onChange=${(event: Event) => turn({ ...of, metric: (event.target as HTMLSelectElement).value })}>
      ${all.map((one) => html`<option value=${one} selected=${one === of.metric}>${one}</option>`)}
    </select></label>
    <fieldset class="ranges">
      <legend>The last</legend>
      ${Object.entries(RANGES).map(
        ([id, [name]]) => html`<label class="choice"><input type="radio" name="range" value=${id} checked=${id === of.range}
          onChange=${() => turn({ ...of, range: id as Range })} /> <span>${name}</span></label>`,
      )}
    </fieldset>
  </form>`;
}

function Drawn({ line, device, range }: { line: Line; device: string; range: Range }) {
  const { rows, metric, size } = line;
  const newest = rows.at(-1);
  const least = Math.min(...rows.map((one) => one.min));
  const most = Math.max(...rows.map((one) => one.max));
  const label = newest
    ? `${metric} of ${device}, the last ${RANGES[range][0]}: from ${figure(least)} to ${figure(most)}, at last ${figure(newest.mean)}`
    : `${metric} of ${device}, the last ${RANGES[range][0]}: nothing came`;
  return html`<div class="line">
    <figure>
      <figcaption><strong>${metric}</strong> ${newest ? html`<span class="last">${figure(newest.mean)}</span>` : ""}
        <span class="hint">${size ? "mean of each minute, and between which values it lay" : "each reading"}; a gap is where none came</span></figcaption>
      <${Drawing} kind="Chart" line=${line} label=${label} />
    </figure>
    <div class="rows" tabindex="0" role="region" aria-label=${`${metric} as a table`}>
      ${size ? html`<${Minutes} rows=${newestFirst(rows)} />` : html`<${Readings} rows=${newestFirst(rows)} />`}
      ${rows.length > ROWS && html`<p class="hint">The newest ${ROWS} of ${count(rows.length)}.</p>`}
      ${rows.length === 0 && html`<p class="hint">Nothing came in this time.</p>`}
    </div>
  </div>`;
}

const newestFirst = (rows: Bucket[]): Bucket[] => rows.slice(-ROWS).reverse();
const start = (one: Bucket) => String(one.start);

const Readings = ({ rows }: { rows: Bucket[] }) => html`<${Table}
  caption="Readings, the newest first"
  rows=${rows}
  id=${start}
  columns=${[
    { head: "Time", cell: (one: Bucket) => html`<${Time} at=${one.start} as=${clock} />` },
    { head: "Value", number: true, cell: (one: Bucket) => figure(one.mean) },
  ]}
/>`;

const Minutes = ({ rows }: { rows: Bucket[] }) => html`<${Table}
  caption="Minutes, the newest first"
  rows=${rows}
  id=${start}
  columns=${[
    { head: "Minute", cell: (one: Bucket) => html`<${Time} at=${one.start} as=${minute} />` },
    { head: "Mean", number: true, cell: (one: Bucket) => figure(one.mean) },
    { head: "Least", number: true, cell: (one: Bucket) => figure(one.min) },
    { head: "Most", number: true, cell: (one: Bucket) => figure(one.max) },
    { head: "Readings", number: true, cell: (one: Bucket) => count(one.count) },
  ]}
/>`;

function LastValues({ of }: { of: Latest[] }) {
  if (!of.length) return html`<p class="hint">None yet.</p>`;
  return html`<${Table}
    caption="Last values, by when they were measured"
    rows=${of}
    id=${(one: Latest) => one.metric}
    columns=${[
      { head: "Metric", cell: (one: Latest) => html`<code>${one.metric}</code>` },
      { head: "Value", number: true, cell: (one: Latest) => figure(one.value) },
      { head: "Measured", cell: (one: Latest) => html`<${Time} at=${one.ts} as=${when} />` },
      { head: "Age", cell: (one: Latest) => html`<${Age} ts=${one.ts} />` },
    ]}
  />`;
}

function LastWindow({ of }: { of: Window | undefined }) {
  if (!of) return html`<p class="hint">Analytics tells each minute once it is over; none was since you came.</p>`;
  const score = of.score === null ? "not enough is known yet" : `${figure(of.score)} deviations from what is usual`;
  return html`<dl>
    <dt>Minute</dt><dd>${clock(of.start)} to ${clock(of.end)}, ${ago(of.end)}${of.revision > 0 && `, revision ${of.revision}`}</dd>
    <dt>Mean</dt><dd>${figure(of.mean)} of ${many(of.count, "reading")}</dd>
    <dt>Median, 99 %</dt><dd>${figure(of.p50)}, ${figure(of.p99)}</dd>
    <dt>Anomaly score</dt><dd>${score} ${of.score !== null && html`<${Badge} tone=${of.unusual ? "bad" : "good"}>${of.unusual ? "unusual" : "usual"}<//>`}</dd>
  </dl>`;
}

function Losses({ of }: { of: Loss[] }) {
  if (!of.length) return html`<p class="hint">Nothing to count yet: only readings with a boot and a number can be missed.</p>`;
  return html`<${Table}
      caption="Losses by start of the device, the newest first"
      rows=${of}
      id=${(one: Loss) => one.boot}
      columns=${[
        { head: "Start", cell: (one: Loss) => html`<code>${one.boot}</code>` },
        { head: "Received", number: true, cell: (one: Loss) => count(one.received) },
        { head: "Doubled", number: true, cell: (one: Loss) => count(one.doubled) },
        { head: "Lost", number: true, cell: (one: Loss) => (one.lost ? html`<${Badge} tone="warn">${count(one.lost)}<//>` : "0") },
      ]}
    />`;
}
