/** A device's shadow: what is wanted of it beside what it says of itself; an operator says what is wanted. */
import { useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useRef } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { call, reason } from "../frame/api.ts";
import { cut } from "../frame/live.ts";
import { Badge, Failure, Table, Time } from "../frame/parts.ts";
import { me } from "../frame/session.ts";
import { when } from "./figures.ts";
import { useHeard } from "./reconnecting.ts";

type Tree = { [key: string]: unknown };

interface Shadow {
  version: number;
  desired: Tree;
  reported: Tree;
  delta: Tree;
  times: { desired: Tree; reported: Tree };
}

interface Setting {
  path: string;
  wanted: unknown;
  reported: unknown;
  pending: boolean;
  changed: number | undefined;
}

const isTree = (value: unknown): value is Tree => typeof value === "object" && value !== null && !Array.isArray(value);

/** The fields of an object, by path: what is in an object is a field of its own, an array is one. */
function fields(tree: Tree, above = ""): [string, unknown][] {
  return Object.entries(tree).flatMap(([key, value]) =>
    isTree(value) && Object.keys(value).length ? fields(value, `${above}${key}.`) : [[`${above}${key}`, value] as [string, unknown]],
  );
}

function settings({ desired, reported, delta, times }: Shadow): Setting[] {
  const wanted = new Map(fields(desired));
  const said = new Map(fields(reported));
  const pending = new Set(fields(delta).map(([path]) => path));
  const at = new Map<string, number>();
  for (const [path, time] of [...fields(times.desired), ...fields(times.reported)])
    if (typeof time === "number") at.set(path, Math.max(time, at.get(path) ?? 0)); // an empty object has none
  return [...new Set([...wanted.keys(), ...said.keys()])].sort().map((path) => ({
    path,
    wanted: wanted.get(path),
    reported: said.get(path),
    pending: pending.has(path),
    changed: at.get(path),
  }));
}

/** What is typed: JSON where it is, else the text itself; nothing takes the wish back. */
function typed(text: string): unknown {
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const patch = (path: string, value: unknown): Tree =>
  path.split(".").reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Tree;

export function Settings({ device }: { device: string }) {
  const newest = useRef<Shadow | undefined>(undefined);
  const ask = async () => {
    const said = await call<Shadow>("GET", `devices/shadow/${device}`);
    // Of two answers the older may come last.
    return (newest.current = said.version < (newest.current?.version ?? 0) ? newest.current! : said);
  };
  const shadow = useHeard(`devices/${device}/shadow`, ask, 15_000);
  const found = shadow.value.value && settings(shadow.value.value);
  const open = found?.filter((one) => one.pending).length ?? 0;
  return html`<section aria-labelledby="settings" class="settings">
    <div class="heading">
      <h3 id="settings">Settings</h3>
      ${found?.length ? html`<${Badge} tone=${open ? "warn" : "good"}>${open ? `${open} not yet as wanted` : "as wanted"}<//>` : ""}
    </div>
    <${Failure} text=${cut.value ? "" : shadow.error.value || shadow.unheard.value} />
    ${found && !found.length && html`<p class="hint">Nothing is wanted of it, and it says nothing of itself.</p>`}
    ${found && found.length > 0 && html`<${List} of=${found} />`}
    ${me.value?.kind === "operator" && html`<${Want} device=${device} done=${shadow.again} />`}
  </section>`;
}

const shown = (value: unknown) => (value === undefined ? "–" : html`<code>${JSON.stringify(value)}</code>`);

const List = ({ of }: { of: Setting[] }) => html`<${Table}
  caption="Settings: what is wanted, and what the device says"
  rows=${of}
  id=${(one: Setting) => one.path}
  columns=${[
    { head: "Setting", cell: (one: Setting) => html`<code>${one.path}</code>` },
    { head: "Wanted", cell: (one: Setting) => shown(one.wanted) },
    { head: "Reported", cell: (one: Setting) => html`<span>${shown(one.reported)} ${one.pending && html`<${Badge} tone="warn">not yet<//>`}</span>` },
    { head: "Changed", cell: (one: Setting) => (one.changed ? html`<${Time} at=${one.changed} as=${when} />` : "–") },
  ]}
/>`;

function Want({ device, done }: { device: string; done: () => Promise<void> }) {
  const failed = useSignal("");
  const busy = useSignal(false);
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const said = new FormData(form);
    const [setting, value] = ["setting", "value"].map((name) => String(said.get(name) ?? "").trim()) as [string, string];
    form.reset(); // at once: what is typed meanwhile is the next
    busy.value = true;
    failed.value = "";
    try {
      await call("PATCH", `devices/shadow/${device}`, { desired: patch(setting, typed(value)) });
      announce(`${setting} is said to ${device}`);
      await done();
    } catch (error) {
      failed.value = `${setting} = ${value}: ${reason(error)}`;
    }
    busy.value = false;
  };
  return html`<form class="filter" aria-label="Say what is wanted" onSubmit=${send}>
      <label>Setting <input name="setting" required autocomplete="off" spellcheck=${false} /></label>
      <label>Value <input name="value" autocomplete="off" spellcheck=${false} aria-describedby="value-hint" /></label>
      <button type="submit" disabled=${busy.value}>Want it so</button>
    </form>
    <p class="hint" id="value-hint">A name such as <code>every</code> or <code>led.color</code>, and a number, true, false or a text. No value takes the wish back. The device hears it at once, or when it is back.</p>
    <${Failure} text=${failed.value} />`;
}
