/** Alerts: what fires, what is about to, what is over; and by which rules. */
import { useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { announce } from "../frame/announce.ts";
import { ask, call, reason } from "../frame/api.ts";
import { count, date } from "../frame/format.ts";
import { Badge, type Column, Dialog, Empty, Failure, Table } from "../frame/parts.ts";
import { me } from "../frame/session.ts";
import { DeviceLink, name, SEVERITY, useAlerts } from "./alarms.ts";
import { type Alert, type List, type Rule } from "./asked.ts";
import { ago, figure, lasting, when } from "./figures.ts";
import { Trouble, useAsked } from "./reconnecting.ts";

/** Rows of one table: a storm of alerts is a number, and not a page that nobody can scroll. */
const SHOWN = 100;
const COMMENT_MOST = 500;

const When = ({ at }: { at: number }) => html`<time title=${date(at)}>${when(at)}, ${ago(at)}</time>`;

/** What a rule says, in words. */
function said({ kind, metric, threshold, clear, for: long, after }: Rule): string {
  if (kind === "silent") return `nothing comes for ${lasting(after ?? 0)}`;
  const ends = clear === null || clear === threshold ? "" : `, until it is ${figure(clear)}`;
  return `${metric} ${kind} ${figure(threshold ?? 0)}${long ? ` for ${lasting(long)}` : ""}${ends}`;
}

export function Alarms() {
  const { value, error, unheard, again } = useAlerts(["firing", "pending", "resolved"]);
  const rules = useAsked(() => call<Rule[]>("GET", "devices/alerting/rules"), 30_000);
  const open = useSignal<Alert | undefined>(undefined);
  const operates = me.value?.kind === "operator";
  const severity = new Map(rules.value.value?.map((one) => [one.rule, one.severity]));
  const found = value.value;

  const rule: Column<Alert> = { head: "Rule", cell: (one) => html`<code>${one.rule}</code>` };
  const device: Column<Alert> = { head: "Device", cell: (one) => html`<${DeviceLink} device=${one.device} />` };
  const measured: Column<Alert> = { head: "Value", number: true, cell: (one) => (one.value === null ? "–" : figure(one.value)) };
  const since: Column<Alert> = { head: "Since", cell: (one) => html`<${When} at=${one.since} />` };
  const weight: Column<Alert> = {
    head: "Severity",
    cell: (one) => html`<${Badge} tone=${SEVERITY[severity.get(one.rule) ?? "warning"]}>${severity.get(one.rule) ?? "alert"}<//>`,
  };
  const known: Column<Alert> = {
    head: "Acknowledged",
    cell: (one) =>
      one.acknowledged
        ? html`<span><${Badge} tone="good">by ${one.acknowledged}<//> ${one.comment}</span>`
        : operates
          ? html`<button class="quiet" type="button" onClick=${() => (open.value = one)}>
              Acknowledge<span class="unseen"> ${name(one)}</span>
            </button>`
          : "not yet",
  };
  const ended: Column<Alert> = { head: "Resolved", cell: (one) => html`<${When} at=${one.changed} />` };

  return html`<section aria-labelledby="firing">
      <div class="heading">
        <h2 id="firing">Firing</h2>
        ${found && html`<${Badge} tone=${found.firing.items.length ? "bad" : "good"}>${tally(found.firing)}<//>`}
      </div>
      <${Trouble} text=${error.value || rules.error.value || unheard.value} />
      ${found && html`<${Some} of=${found.firing} caption="Alerts that fire" none="Nothing is wrong." columns=${[weight, rule, device, measured, since, known]} />`}
    </section>
    ${found &&
    html`<section aria-labelledby="pending">
        <div class="heading"><h2 id="pending">Pending</h2><${Badge} tone=${found.pending.items.length ? "warn" : "plain"}>${tally(found.pending)}<//></div>
        <${Some} of=${found.pending} caption="Alerts that are pending" none="Nothing is about to fire." columns=${[rule, device, measured, since]} />
      </section>
      <section aria-labelledby="resolved">
        <div class="heading"><h2 id="resolved">Resolved</h2><${Badge} tone="plain">${tally(found.resolved)}<//></div>
        <${Some} of=${found.resolved} caption="Alerts that are resolved" none="Nothing was wrong." columns=${[rule, device, measured, since, ended]} />
      </section>`}
    <section aria-labelledby="rules">
      <div class="heading"><h2 id="rules">Rules</h2></div>
      ${rules.value.value && html`<${Rules} of=${rules.value.value} />`}
    </section>
    ${open.value &&
    html`<${Acknowledge}
      alert=${open.value}
      close=${() => (open.value = undefined)}
      done=${() => {
        announce(`${name(open.value!)} is acknowledged`);
        open.value = undefined;
        void again();
      }}
    />`}`;
}

const tally = ({ items, more }: List<Alert>): string => `${more ? "more than " : ""}${count(items.length)}`;

function Some({ of, caption, none, columns }: { of: List<Alert>; caption: string; none: string; columns: Column<Alert>[] }) {
  if (!of.items.length) return html`<${Empty}>${none}<//>`;
  const rows = [...of.items].sort((a, b) => b.changed - a.changed).slice(0, SHOWN);
  return html`<${Table} caption=${`${caption}, the newest first`} rows=${rows} id=${name} columns=${columns} />
    ${rows.length < of.items.length && html`<p class="hint">The newest ${SHOWN} are shown.</p>`}`;
}

function Rules({ of }: { of: Rule[] }) {
  if (!of.length) return html`<${Empty}>There is no rule. An operator makes one: <code>PUT /devices/alerting/rules/NAME</code>.<//>`;
  return html`<${Table}
    caption="Rules"
    rows=${of}
    id=${(one: Rule) => one.rule}
    columns=${[
      { head: "Rule", cell: (one: Rule) => html`<code>${one.rule}</code>` },
      { head: "Fires when", cell: said },
      { head: "Devices", cell: (one: Rule) => html`<code>${one.devices}</code>` },
      { head: "Severity", cell: (one: Rule) => html`<${Badge} tone=${SEVERITY[one.severity]}>${one.severity}<//>` },
      { head: "Tells", cell: (one: Rule) => one.channels.join(", ") || "this page" },
    ]}
  />`;
}

function Acknowledge({ alert, close, done }: { alert: Alert; close: () => void; done: () => void }) {
  const failed = useSignal("");
  const busy = useSignal(false);
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    const comment = String(new FormData(event.target as HTMLFormElement).get("comment") ?? "").trim();
    busy.value = true;
    failed.value = ""; // the same again is said again
    try {
      await ask("POST", `devices/alerting/alerts/${alert.rule}/${alert.device}/acknowledge`, { comment });
      done();
    } catch (error) {
      failed.value = reason(error);
      busy.value = false;
    }
  };
  return html`<${Dialog} title="Acknowledge" close=${close}>
    <p><code>${alert.rule}</code> at <code>${alert.device}</code>. Everybody sees that you know, and what you say, until it is over.</p>
    <${Failure} text=${failed.value} />
    <form onSubmit=${send}>
      <label for="comment">Comment</label>
      <textarea id="comment" name="comment" rows="3" maxlength=${COMMENT_MOST}></textarea>
      <button type="submit" disabled=${busy.value}>Acknowledge</button>
    </form>
  <//>`;
}
