/** The fleet: who is there, what they measure, and what is wrong. */
import { html } from "htm/preact";
import type { VNode } from "preact";
import { show } from "../frame/layout.ts";
import { me } from "../frame/session.ts";
import { Alarms } from "./alerts.ts";
import { Device } from "./device.ts";
import { Fleet } from "./fleet.ts";
import { place } from "./place.ts";
import "./style.css";

const KINDS = ["viewer", "operator"];

/** The gateway judges; this says so before it refuses everything that a view would ask. */
function Gate({ then }: { then: () => VNode }) {
  const kind = me.value?.kind ?? "";
  if (KINDS.includes(kind)) return then();
  return html`<p class="notice warn">
    This page is for viewers and operators. You are here as ${kind ? `a ${kind}` : "somebody unknown"}, and may not see the fleet: sign out,
    and come back with an account or a token of another role.
  </p>` as VNode;
}

// A device is shown in the place of the list that it was chosen from.
const fleet = () => (place.value ? html`<${Device} key=${place.value.device} of=${place.value} />` : html`<${Fleet} />`) as VNode;
const alerts = () => html`<${Alarms} />` as VNode;

show({
  title: "Devices",
  role: "viewer",
  needs: "either",
  hint: html`Make one with <code>gateway token --role viewer</code>; an operator's does as well.`,
  views: [
    { id: "fleet", name: "Fleet", show: () => html`<${Gate} then=${fleet} />` as VNode },
    { id: "alerts", name: "Alerts", show: () => html`<${Gate} then=${alerts} />` as VNode },
  ],
});
