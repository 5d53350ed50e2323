/** The chart of a line: its means, and between which values they lie; the table beside it says the same in words. */
import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock } from "../frame/format.ts";
import { figure, minute } from "./figures.ts";
import { columns } from "./series.ts";
import type { Line } from "./watched.ts";

const HEIGHT = 300;

/** The colours that the style sheet gives the parts of the chart by now: a canvas knows no variables. */
const colour = (host: Element, property: "color" | "borderTopColor" | "outlineColor" | "caretColor") => () =>
  getComputedStyle(host)[property];

function options(host: HTMLElement, readout: (text: string) => void): uPlot.Options {
  const ink = colour(host, "color");
  const axis = { stroke: colour(host, "caretColor"), font: "13px system-ui, sans-serif" };
  const lines = { stroke: colour(host, "borderTopColor"), width: 1 };
  const size = () => ({ width: host.clientWidth, height: HEIGHT });
  return {
    ...size(),
    ms: 1,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false },
    scales: { x: { time: true } },
    axes: [
      { ...axis, grid: lines, ticks: lines, size: 36, space: 70, values: (_, at) => at.map(minute) },
      { ...axis, grid: lines, ticks: lines, size: 62, values: (_, at) => at.map(figure) },
    ],
    series: [
      {},
      {
        stroke: ink,
        width: 2,
        paths: runs,
        // Where neighbours are far away there is no line: a reading by itself is a point.
        points: { size: 6, fill: ink, filter: alone },
      },
      // Not drawn, but for the scale to hold them.
      { paths: () => null, points: { show: false } },
      { paths: () => null, points: { show: false } },
    ],
    hooks: {
      drawAxes: [(chart) => band(chart, colour(host, "outlineColor")())],
      setCursor: [
        (chart) => {
          const n = chart.cursor.idx;
          const value = n == null ? null : chart.data[1]![n];
          readout(n == null || value == null ? "" : `${clock(chart.data[0][n]!)}: ${figure(value)}`);
        },
      ],
    },
  };
}

// Lines and bands of uPlot's own go on behind a gap, and are clipped there: at its edges a pixel of them is left.

function runs({ data: [at, mean], valToPos }: uPlot): uPlot.Series.Paths {
  const stroke = new Path2D();
  for (let n = 0; n < at.length; n++)
    if (mean![n] != null)
      stroke[mean![n - 1] == null ? "moveTo" : "lineTo"](valToPos(at[n]!, "x", true), valToPos(mean![n]!, "y", true));
  return { stroke };
}

/** Between which values each minute lay. */
function band({ ctx, bbox, data: [at, , least, most], valToPos }: uPlot, fill: string): void {
  const corner = (n: number, value: number) => ctx.lineTo(valToPos(at[n]!, "x", true), valToPos(value, "y", true));
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = fill;
  for (let first = 0, end = 0; first < at.length; first = ++end) {
    ctx.beginPath();
    for (; least![end] != null; end++) corner(end, most![end]!);
    for (let n = end - 1; n >= first; n--) corner(n, least![n]!);
    ctx.fill();
  }
  ctx.restore();
}

/** The indices of values that have none beside them; all where they are few. */
function alone(chart: uPlot, nth: number, show: boolean): number[] | null {
  if (show) return null;
  const values = chart.data[nth]!;
  const there = (n: number) => values[n] != null;
  return Array.from(values, (_, n) => n).filter((n) => there(n) && !there(n - 1) && !there(n + 1));
}

export function Chart({ line, label }: { line: Line; label: string }) {
  const host = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  useEffect(() => {
    const at = host.current!;
    const made = new uPlot(options(at, (text) => (readout.current!.textContent = text)), [[], [], [], []], at);
    chart.current = made;
    const wide = new ResizeObserver(() => made.setSize({ width: at.clientWidth, height: HEIGHT }));
    wide.observe(at);
    const colours = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => made.redraw();
    colours.addEventListener("change", redraw);
    return () => {
      wide.disconnect();
      colours.removeEventListener("change", redraw);
      made.destroy();
    };
  }, []);
  useEffect(() => {
    chart.current!.batch(() => {
      chart.current!.setData(columns(line.rows, line.size), false);
      chart.current!.setScale("x", { min: line.begin, max: line.end });
    });
  }, [line]);
  return html`<div class="chart" ref=${host} role="img" aria-label=${label}></div>
    <p class="readout" ref=${readout} aria-hidden="true"></p>`;
}
