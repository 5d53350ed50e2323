/** What a screen reader hears of changes: politely, one sentence for each burst of them. */
import { html } from "htm/preact";
import { signal } from "@preact/signals";

const QUIET = 400;
const said = signal("");
let waiting: ReturnType<typeof setTimeout> | undefined;

/** Say `text` once nothing newer has come for a moment. */
export function announce(text: string): void {
  clearTimeout(waiting);
  waiting = setTimeout(() => (said.value = text), QUIET);
}

export const Announcer = () => html`<div class="unseen" role="status" aria-live="polite">${said}</div>`;
