/** One dead letter, whole: why it was given up, what it holds, and its payload to mend. */
import { useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { ask, call, reason } from "../frame/api.ts";
import { date } from "../frame/format.ts";
import { Dialog, Failure } from "../frame/parts.ts";

interface Whole {
  address: string;
  group: string;
  reason: string;
  error: string;
  topic: string;
  id: string;
  attempts: number;
  when: number;
  at?: string;
  producer?: string;
  worker?: string;
  traceback?: string;
  type?: string;
  payload?: unknown;
  base64?: string;
}

export function Letter(props: { address: string; close: () => void; replayed: (said: string) => void }) {
  const letter = useSignal<Whole | undefined>(undefined);
  const failed = useSignal("");
  useEffect(() => {
    call<Whole>("GET", `dead/${props.address}`).then(
      (found) => (letter.value = found),
      (error: unknown) => (failed.value = reason(error)),
    );
  }, [props.address]);
  const replay = async (event: SubmitEvent) => {
    event.preventDefault();
    failed.value = "";
    try {
      await ask("PUT", `dead/${props.address}`, String(new FormData(event.target as HTMLFormElement).get("payload")));
      props.replayed("1 letter mended and replayed");
    } catch (error) {
      failed.value = reason(error);
    }
  };
  const found = letter.value;
  return html`<${Dialog} title="Dead letter" close=${props.close}>
    <${Failure} text=${failed.value} />
    ${found && html`<${Facts} of=${found} />`}
    ${found?.traceback && html`<details><summary>Traceback</summary><pre tabindex="0">${found.traceback}</pre></details>`}
    ${found?.base64 !== undefined && html`<h3>Payload (bytes, as base64)</h3><pre tabindex="0">${found.base64}</pre>`}
    ${found !== undefined &&
    found.base64 === undefined &&
    html`<form onSubmit=${replay}>
      <label for="payload">Payload (${found.type})</label>
      <textarea id="payload" name="payload" rows="8" spellcheck="false">${JSON.stringify(found.payload, null, 2)}</textarea>
      <button type="submit">Replay with this payload</button>
    </form>`}
  <//>`;
}

function Facts({ of }: { of: Whole }) {
  const facts: [string, string][] = [
    ["Error", of.error],
    ["Reason", of.reason],
    ["Topic", of.topic],
    ["Service", of.group || "none: refused at the door"],
    ["Attempts", String(of.attempts)],
    ["Given up", date(of.when)],
    ["Event", of.id],
    ["In the log", of.at ?? ""],
    ["From", of.producer ?? ""],
    ["Address", of.address],
  ];
  return html`<dl>${facts.map(([name, value]) => value && html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}
