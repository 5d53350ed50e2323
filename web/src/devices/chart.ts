/** Charts: a line's means, and between which values they lie; or lines of several devices. The table beside says the same in words. */
import { html } from "htm/preact";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock } from "../frame/format.ts";
import { spread } from "./ends.ts";
import { figure, minute } from "./figures.ts";
import type { FleetLine, FleetLines } from "./lines.ts";
import { columns } from "./series.ts";
import type { Line } from "./watched.ts";

const HEIGHT = 300;
/** Of the numbers at the ends of lines, and the room for them beside the plot, in px. */
const LABEL = 13;
const LABELS = 44;
/** How far from the cursor a value may be that is told, in px. */
const NEAR = 60;

type Numbers = ArrayLike<number | null | undefined>;

/** The colours that the style sheet gives the parts of the chart by now: a canvas knows no variables. */
const colour = (host: Element, property: "color" | "borderTopColor" | "outlineColor" | "caretColor") => () =>
  getComputedStyle(host)[property];

type Readout = (text: string) => void;
type Make = (host: HTMLElement, readout: Readout) => uPlot.Options;

/** What all charts are: time from left to right, values upwards, and nothing to press or to drag. */
function frame(host: HTMLElement): Omit<uPlot.Options, "series"> {
  const axis = { stroke: colour(host, "caretColor"), font: "13px system-ui, sans-serif" };
  const lines = { stroke: colour(host, "borderTopColor"), width: 1 };
  return {
    width: host.clientWidth,
    height: HEIGHT,
    ms: 1,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false },
    scales: { x: { time: true } },
    axes: [
      { ...axis, grid: lines, ticks: lines, size: 36, space: 70, values: (_, at) => at.map(minute) },
      { ...axis, grid: lines, ticks: lines, size: 62, values: (_, at) => at.map(figure) },
    ],
  };
}

/** Not drawn, but for the scale to hold it. */
const UNDRAWN: uPlot.Series = { paths: () => null, points: { show: false } };

function single(host: HTMLElement, readout: Readout): uPlot.Options {
  const ink = colour(host, "color");
  return {
    ...frame(host),
    series: [
      {},
      {
        stroke: ink,
        width: 2,
        paths: (chart) => ({ stroke: runs(chart, chart.data[0], chart.data[1]!) }),
        // Where neighbours are far away there is no line: a reading by itself is a point.
        points: { size: 6, fill: ink, filter: (chart, nth, show) => (show ? null : alone(chart.data[nth]!)) },
      },
      UNDRAWN,
      UNDRAWN,
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

function runs({ valToPos }: uPlot, at: Numbers, mean: Numbers): Path2D {
  const path = new Path2D();
  for (let n = 0; n < at.length; n++)
    if (mean[n] != null) path[mean[n - 1] == null ? "moveTo" : "lineTo"](valToPos(at[n]!, "x", true), valToPos(mean[n]!, "y", true));
  return path;
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

/** The indices of values that have none beside them. */
function alone(values: Numbers): number[] {
  const there = (n: number) => values[n] != null;
  return Array.from(values, (_, n) => n).filter((n) => there(n) && !there(n - 1) && !there(n + 1));
}

/** Each as its mark in the legend is, `marks` in the same order; a number at its end says which, and a cross that it fires. */
function strokes(chart: uPlot, lines: FleetLine[], firing: ReadonlySet<string>, marks: CSSStyleDeclaration[], alarm: string): void {
  const { ctx, bbox, valToPos } = chart;
  const scale = uPlot.pxRatio;
  const [x, y] = [(ts: number) => valToPos(ts, "x", true), (value: number) => valToPos(value, "y", true)];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  lines.forEach(({ rows, size }, n) => {
    const { color, borderTopWidth, borderTopStyle } = marks[n]!;
    const [at, mean] = columns(rows, size);
    ctx.strokeStyle = ctx.fillStyle = color;
    ctx.lineWidth = parseFloat(borderTopWidth) * scale;
    ctx.setLineDash(borderTopStyle === "dashed" ? [7 * scale, 4 * scale] : []);
    ctx.stroke(runs(chart, at, mean));
    ctx.beginPath();
    for (const k of alone(mean)) {
      ctx.moveTo(x(at[k]!), y(mean[k]!));
      ctx.arc(x(at[k]!), y(mean[k]!), 3 * scale, 0, 2 * Math.PI);
    }
    ctx.fill();
  });
  ctx.restore();
  const ends = lines.flatMap(({ device, rows }, n) => rows.slice(-1).map(({ start, mean }) => ({ device, n, at: x(start), height: y(mean) })));
  const heights = spread(ends.map((one) => one.height), LABEL * scale, bbox.top + bbox.height);
  ctx.save();
  ctx.font = `600 ${LABEL * scale}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ends.forEach(({ device, n, at }, k) => {
    const fires = firing.has(device);
    ctx.fillStyle = fires ? alarm : marks[n]!.color;
    ctx.fillText(`${n + 1}${fires ? " ✕" : ""}`, at + 7 * scale, heights[k]!);
  });
  ctx.restore();
}

/** Whose value lies beneath the cursor, or next to it. */
function nearest({ cursor, valToPos }: uPlot, lines: FleetLine[]): string {
  if (cursor.left! < 0) return ""; // it is away
  let [text, least] = ["", NEAR];
  for (const { device, rows } of lines)
    for (const { start, mean } of rows) {
      const away = Math.hypot(valToPos(start, "x") - cursor.left!, valToPos(mean, "y") - cursor.top!);
      if (away < least) [text, least] = [`${device}, ${clock(start)}: ${figure(mean)}`, away];
    }
  return text;
}

/** Drawn as soon as the page is as its data: an effect that waits would find other marks in the legend than it has lines. */
function Plot({ make, data, begin, end, label }: { make: Make; data: uPlot.AlignedData; begin: number; end: number; label: string }) {
  const host = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  useLayoutEffect(() => {
    const at = host.current!;
    const options = make(at, (text) => (readout.current!.textContent = text));
    const made = new uPlot(options, options.series.map(() => []) as unknown as uPlot.AlignedData, at);
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
  useLayoutEffect(() => {
    chart.current!.batch(() => {
      chart.current!.setData(data, false);
      chart.current!.setScale("x", { min: begin, max: end });
    });
  }, [data]);
  return html`<div class="chart" ref=${host} role="img" aria-label=${label}></div>
    <p class="readout" ref=${readout} aria-hidden="true"></p>`;
}

export function Chart({ line, label }: { line: Line; label: string }) {
  const data = useMemo(() => columns(line.rows, line.size), [line]);
  return html`<${Plot} make=${single} data=${data} begin=${line.begin} end=${line.end} label=${label} />`;
}

/** Lines of devices, drawn as the marks of class `mark` are that stand in the same `.line`. */
export function Several({ lines, firing, label }: { lines: FleetLines; firing: ReadonlySet<string>; label: string }) {
  const newest = useRef({ lines, firing });
  newest.current = { lines, firing };
  const make = (host: HTMLElement, readout: Readout): uPlot.Options => ({
    ...frame(host),
    padding: [null, LABELS, null, null],
    cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
    series: [{}, UNDRAWN],
    hooks: {
      draw: [
        (chart) => {
          const marks = [...host.closest(".line")!.querySelectorAll(".mark")].map((one) => getComputedStyle(one));
          strokes(chart, newest.current.lines.of, newest.current.firing, marks, colour(host, "color")());
        },
      ],
      setCursor: [(chart) => readout(nearest(chart, newest.current.lines.of))],
    },
  });
  const data = useMemo<uPlot.AlignedData>(() => {
    const means = lines.of.flatMap((one) => one.rows.map(({ mean }) => mean));
    const none = means.length === 0;
    return [[lines.begin, lines.end], none ? [null, null] : [Math.min(...means), Math.max(...means)]];
  }, [lines, firing]);
  return html`<${Plot} make=${make} data=${data} begin=${lines.begin} end=${lines.end} label=${label} />`;
}
