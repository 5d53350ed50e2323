/** The fleet: who is there, what each measured last, and where something is wrong. */
import { signal, useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useMemo } from "preact/hooks";
import { count, date, many, span } from "../frame/format.ts";
import { subscribe } from "../frame/live.ts";
import { Badge, Empty, Table } from "../frame/parts.ts";
import { DeviceLink, useAlerts } from "./alarms.ts";
import { type Device, type Latest, latest, list } from "./asked.ts";
import { ago, figure, stale } from "./figures.ts";
import { FleetChart } from "./fleetchart.ts";
import { now, useFrames, useSeconds } from "./frames.ts";
import { Lines } from "./lines.ts";
import { Trouble, useAsked } from "./reconnecting.ts";
import { DEVICES_MOST, Roll, type Row } from "./roll.ts";

/** Rows that are drawn at first, and that each "more" adds. */
const SHOWN = 50;
/** Least ms between two drawings of the list. */
const PAUSE = 250;
/** Devices whose last values are asked for at a time. */
const AT_ONCE = 4;
/** Ms before what was not answered is asked for again. */
const AGAIN = 10_000;
/** Metrics of a row; the page of the device has all. */
const VALUES = 3;

const words = signal("");
const only = signal("all");

type Which = { name: string; has: (row: Row, firing: number) => boolean };
const WHICH: Record<string, Which> = {
  all: { name: "All devices", has: () => true },
  online: { name: "Online", has: (row) => row.online === true },
  offline: { name: "Offline", has: (row) => row.online === false },
  firing: { name: "With alerts", has: (_, firing) => firing > 0 },
};

function useRoll() {
  const roll = useMemo(() => new Roll(), []);
  const drawn = useSignal(0);
  const unseen = useSignal("");
  const unheard = useSignal("");
  const draw = useFrames(() => drawn.value++, PAUSE);
  const lines = useMemo(() => new Lines(draw), []);
  useSeconds(draw);
  const listed = useAsked(async () => {
    const found = await list<Device>("devices/registry/", DEVICES_MOST);
    roll.put(found.items);
    draw();
    return found.items.length;
  }, 30_000);
  useEffect(() => {
    const hear = (filter: string, take: (event: Parameters<Roll["telemetry"]>[0]) => void, failed: (why: string) => void) =>
      subscribe(filter, (event) => (take(event), draw()), failed);
    const ends = [
      hear("devices/+/presence", (one) => roll.presence(one), (why) => (unseen.value = why)),
      hear("devices/+/telemetry", (one) => (roll.telemetry(one), lines.hear(one)), (why) => {
        unheard.value = why;
        if (!why) lines.load();
      }),
    ];
    return () => {
      ends.forEach((end) => end());
      lines.end();
    };
  }, []);
  return { roll, lines, drawn, draw, listed, unheard: unseen.value || unheard.value };
}

/** Ask for the last values of rows that are shown, a few at a time, each once; returns whether all were asked, and answered. */
function useValues(rows: Row[], roll: Roll, draw: () => void): boolean {
  const busy = useMemo(() => ({ n: 0 }), []);
  useEffect(() => {
    for (const row of rows) {
      if (busy.n >= AT_ONCE) return;
      if (row.asked) continue;
      row.asked = true;
      busy.n++;
      latest(row.device)
        .then(
          (found) => roll.latest(row.device, found),
          () => setTimeout(() => {
            const now = roll.rows.get(row.device); // the registry's answer may have put another in its place
            if (now) now.asked = false;
          }, AGAIN),
        )
        .finally(() => {
          busy.n--;
          draw();
        });
    }
  });
  return busy.n === 0 && rows.every((row) => row.asked);
}

export function Fleet() {
  const { roll, lines, drawn, draw, listed, unheard } = useRoll();
  const alerts = useAlerts(["firing"]);
  const most = useSignal(SHOWN);
  const nth = drawn.value;
  const firing = new Map<string, number>();
  for (const { device } of alerts.value.value?.firing.items ?? []) firing.set(device, (firing.get(device) ?? 0) + 1);
  const all = [...roll.rows.values()];
  const sought = words.value.trim().toLowerCase();
  const which = WHICH[only.value]!;
  const found = all.filter(
    (one) => which.has(one, firing.get(one.device) ?? 0) && `${one.device} ${one.label}`.toLowerCase().includes(sought),
  );
  const rows = found.slice(0, most.value);
  const known = useValues(rows, roll, draw);
  return html`<section aria-labelledby="fleet">
    <div class="heading">
      <h2 id="fleet">Fleet</h2>
      ${listed.value.value !== undefined && html`<${Summary} all=${all} firing=${firing} />`}
    </div>
    <${Filter} />
    <${Trouble} text=${listed.error.value || alerts.error.value || unheard || lines.failed} />
    ${listed.value.value !== undefined && html`<p class="hint" role="status">${told(rows.length, found.length, all.length)}</p>`}
    ${all.length === 0 &&
    listed.value.value !== undefined &&
    html`<${Empty}>No device is registered yet. An operator makes one: <code>gateway devices create NAME</code>.<//>`}
    ${all.length > 0 && html`<${FleetChart} all=${all} rows=${rows} firing=${firing} lines=${lines} nth=${nth} known=${known} />`}
    ${rows.length > 0 && html`<${Rows} rows=${rows} firing=${firing} />`}
    ${rows.length < found.length &&
    html`<p><button class="quiet" type="button" onClick=${() => (most.value += SHOWN)}>Show more</button></p>`}
  </section>`;
}

const told = (shown: number, found: number, all: number): string =>
  `${shown < found ? `${count(shown)} of ` : ""}${many(found, "device")}${found < all ? ` of ${count(all)}` : ""}`;

function Summary({ all, firing }: { all: Row[]; firing: Map<string, number> }) {
  const online = all.filter((one) => one.online).length;
  const offline = all.filter((one) => one.online === false).length;
  const wrong = [...firing.values()].reduce((sum, one) => sum + one, 0);
  return html`<${Badge} tone="good">${count(online)} online<//>
    <${Badge} tone=${offline ? "warn" : "plain"}>${count(offline)} offline<//>
    <a class="bare" href="#alerts"><${Badge} tone=${wrong ? "bad" : "good"}>${many(wrong, "alert")}<//></a>`;
}

function Filter() {
  return html`<form class="filter" role="search" aria-label="Devices" onSubmit=${(event: Event) => event.preventDefault()}>
    <label>Name or label <input type="search" value=${words.value} spellcheck="false" onInput=${(event: InputEvent) => {
      words.value = (event.target as HTMLInputElement).value;
    }} /></label>
    <label>Show <select value=${only.value} onChange=${(event: Event) => {
      only.value = (event.target as HTMLSelectElement).value;
    }}>${Object.entries(WHICH).map(([id, one]) => html`<option value=${id} selected=${id === only.value}>${one.name}</option>`)}</select></label>
  </form>`;
}

/** Whether a device is there, by mark, colour and word, and since when. */
export function Presence({ of }: { of: Device }) {
  if (of.state === "suspended") return html`<${Badge} tone="bad">suspended<//>`;
  if (of.online === null || of.since === null) return html`<${Badge} tone="plain">never seen<//>`;
  return html`<span class="presence"><${Badge} tone=${of.online ? "good" : "warn"}>${of.online ? "online" : "offline"}<//>
    <span class="hint" title=${date(of.since)}>for ${span((now.value - of.since) / 1000)}</span></span>`;
}

const Values = ({ of }: { of: Latest[] }) =>
  of.length
    ? html`<span class="values">${of.slice(0, VALUES).map((one) => html`<span><span class="hint">${one.metric}</span> ${figure(one.value)}</span> `)}
        ${of.length > VALUES && html`<span class="hint">and ${of.length - VALUES} more</span>`}</span>`
    : html`<span class="hint">none</span>`;

export const Age = ({ ts }: { ts: number }) => html`<span class="presence"><time title=${date(ts)}>${ago(ts)}</time>
  ${stale(ts) && html` <${Badge} tone="warn">stale<//>`}</span>`;

function Rows({ rows, firing }: { rows: Row[]; firing: Map<string, number> }) {
  const values = (one: Row) => [...one.values.values()].sort((a, b) => a.metric.localeCompare(b.metric));
  const newest = (one: Row) => Math.max(...[...one.values.values()].map(({ ts }) => ts));
  return html`<${Table}
    caption="Devices, by name"
    rows=${rows}
    id=${(one: Row) => one.device}
    columns=${[
      {
        head: "Device",
        cell: (one: Row) => html`<span><${DeviceLink} device=${one.device} />${one.label && html` <span class="hint">${one.label}</span>`}</span>`,
      },
      { head: "Presence", cell: (one: Row) => html`<${Presence} of=${one} />` },
      { head: "Last values", cell: (one: Row) => html`<${Values} of=${values(one)} />` },
      { head: "Measured", cell: (one: Row) => (one.values.size ? html`<${Age} ts=${newest(one)} />` : "–") },
      {
        head: "Alerts",
        cell: (one: Row) => {
          const n = firing.get(one.device) ?? 0;
          return n ? html`<${Badge} tone="bad">${n} firing<//>` : "none";
        },
      },
    ]}
  />`;
}
