/** The way to a device that measures now; to all of them, where none does. */
import { html } from "htm/preact";
import { call } from "../frame/api.ts";
import { usePoll } from "../frame/poll.ts";
import { root } from "../frame/root.ts";

const EVERY = 5_000;
/** Devices of which one is chosen. */
const LOOKED = 100;

async function moving(): Promise<string> {
  const { items } = await call<{ items: { device: string; online: boolean | null }[] }>("GET", `devices/registry/?limit=${LOOKED}`);
  const there = items.filter((one) => one.online);
  // A pump never stands still; the weather may, for hours.
  return (there.find((one) => one.device.startsWith("pump-")) ?? there[0])?.device ?? "";
}

export function Sensor() {
  const { value, error } = usePoll(moving, EVERY);
  const device = value.value;
  return html`<p class="actions">
    <a class="go" href=${new URL(device ? `devices/#device/${device}` : "devices/", root).href}>${device ? `Watch ${device}` : "See the devices"}</a>
    ${error.value ? html`<span class="hint">${error.value}</span>` : device === "" && html`<span class="hint">No device is there yet.</span>`}
  </p>`;
}
