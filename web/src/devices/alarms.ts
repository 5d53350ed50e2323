/** The alerts of the fleet as they stand: asked anew when one is told, and now and then, for not every change is. */
import { html } from "htm/preact";
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { many } from "../frame/format.ts";
import { subscribe } from "../frame/live.ts";
import type { Tone } from "../frame/parts.ts";
import { type Alert, type List, list, type State } from "./asked.ts";
import { useAsked } from "./reconnecting.ts";

/** Alerts of one state that are asked for: more are a storm, of which the count says enough. */
const MOST = 1000;
/** How often, in ms: whoever told nothing (it is pending; somebody acknowledged it) is seen after that. */
const EVERY = 5000;
/** The least between two questions in ms, however many alerts come. */
const PAUSE = 500;

export type Alerts = Record<State, List<Alert>>;
const NONE: List<Alert> = { items: [], more: false };

async function look(states: State[]): Promise<Alerts> {
  const found = await Promise.all(states.map((state) => list<Alert>(`devices/alerting/alerts?state=${state}`, MOST)));
  const made: Alerts = { firing: NONE, pending: NONE, resolved: NONE };
  states.forEach((state, n) => (made[state] = found[n]!));
  return made;
}

export const name = ({ rule, device }: { rule: string; device: string }) => `${rule} ${device}`;

/** The alerts in `states`; `failed` says why they cannot be told live. */
export function useAlerts(states: State[]) {
  const polled = useAsked(() => look(states), EVERY);
  const unheard = useSignal("");
  const soon = useMemo(() => {
    let due: ReturnType<typeof setTimeout> | undefined;
    return {
      ask: () => (due ??= setTimeout(() => ((due = undefined), document.hidden || void polled.again()), PAUSE)),
      stop: () => clearTimeout(due),
    };
  }, []);
  useEffect(() => {
    const end = subscribe("devices/+/alerts/+", soon.ask, (why) => (unheard.value = why));
    return () => {
      soon.stop();
      end();
    };
  }, []);
  useAnnounced(polled.value.value?.firing);
  return { ...polled, unheard };
}

/** Say what fires that did not before. */
function useAnnounced(firing: List<Alert> | undefined): void {
  const before = useSignal<ReadonlySet<string> | undefined>(undefined);
  useEffect(() => {
    if (firing === undefined) return;
    const old = before.value;
    before.value = new Set(firing.items.map(name));
    const fresh = old ? firing.items.filter((one) => !old.has(name(one))) : [];
    if (fresh.length === 1) announce(`${fresh[0]!.rule} fires at ${fresh[0]!.device}`);
    else if (fresh.length) announce(`${many(fresh.length, "alert")} fire`);
  }, [firing]);
}

export const SEVERITY: Record<string, Tone> = { info: "plain", warning: "warn", critical: "bad" };

/** A device's page, by its name; silence may be of all of them at once. */
export const DeviceLink = ({ device }: { device: string }) =>
  device === "*" ? "the whole fleet" : html`<a href=${`#device/${device}`}><code>${device}</code></a>`;
