/** What draws: loaded where somebody looks at a chart, for neither the list nor the alerts need it; the tables are there without it. */
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { reason } from "../frame/api.ts";

type Charts = typeof import("./chart.ts");

const drawing = signal<Charts | undefined>(undefined);
const undrawn = signal("");
const load = () =>
  import("./chart.ts").then(
    (found) => (drawing.value = found),
    (error: unknown) => (undrawn.value = reason(error)),
  );

/** A chart of that kind, and its place until it is there. */
export function Drawing({ kind, ...of }: { kind: keyof Charts; [part: string]: unknown }) {
  useEffect(() => void load(), []);
  if (drawing.value) return html`<${drawing.value[kind]} ...${of} />`;
  return html`<p class="chart hint">${undrawn.value && `The chart is not there: ${undrawn.value}. The table is.`}</p>`;
}
