/** The parts that pages are made of: notices, badges, tables, a dialog. */
import { html } from "htm/preact";
import type { ComponentChildren, VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { date } from "./format.ts";

export type Tone = "good" | "warn" | "bad" | "plain";
const MARKS: Record<Tone, string> = { good: "✓", warn: "!", bad: "✕", plain: "•" };

/** A state in words, with a mark and a colour: never the colour alone. */
export const Badge = ({ tone, children }: { tone: Tone; children?: ComponentChildren }) =>
  html`<span class="badge ${tone}"><span aria-hidden="true">${MARKS[tone]}</span> ${children}</span>`;

/** What went wrong, said at once; nothing where `text` is empty. */
export const Failure = ({ text }: { text: string }) =>
  text ? html`<p class="notice bad" role="alert"><strong>That did not work.</strong> ${text}</p>` : null;

/** A time as short as `as` says it; whoever points at it reads its day too. */
export const Time = ({ at, as }: { at: number; as: (at: number) => string }) => html`<time title=${date(at)}>${as(at)}</time>`;

export const Empty = ({ children }: { children?: ComponentChildren }) => html`<p class="empty">${children}</p>`;

export interface Column<Row> {
  head: string;
  cell: (row: Row) => ComponentChildren;
  /** Right-aligned figures. */
  number?: boolean;
}

/** A table with its caption; on a phone each row is a card whose cells name their column. */
export function Table<Row>(props: {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  id: (row: Row) => string;
}): VNode {
  const { caption, columns, rows } = props;
  return html`<table>
    <caption class="unseen">${caption}</caption>
    <thead><tr>${columns.map((one) => html`<th scope="col" class=${one.number ? "number" : ""}>${one.head}</th>`)}</tr></thead>
    <tbody>
      ${rows.map(
        (row) => html`<tr key=${props.id(row)}>
          ${columns.map((one) => html`<td data-head=${one.head} class=${one.number ? "number" : ""}>${one.cell(row)}</td>`)}
        </tr>`,
      )}
    </tbody>
  </table>` as VNode;
}

/** A modal dialog: the browser keeps the focus inside, closes it on Escape and gives the focus back. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children?: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => box.current?.showModal(), []);
  return html`<dialog ref=${box} onClose=${close} aria-labelledby="dialog-title">
    <header><h2 id="dialog-title">${title}</h2>
      <button class="quiet" type="button" onClick=${() => box.current?.close()}>Close</button></header>
    ${children}
  </dialog>`;
}
