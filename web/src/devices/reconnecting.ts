/** Said where the live connection is cut: what is shown is what was true then. */
import { effect, untracked, useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { clock } from "../frame/format.ts";
import { cut, link, subscribe } from "../frame/live.ts";
import { Failure } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";

let was = 0;
effect(() => {
  if (cut.value && !was) announce("The connection is cut: reconnecting");
  if (was && !cut.value && link.peek() === "live") announce("The connection is back");
  was = cut.value;
});

/** `usePoll`, that asks at once when the connection is back: what failed meanwhile is true no more. */
export function useAsked<T>(ask: () => Promise<T>, every: number) {
  const polled = usePoll(ask, every);
  useEffect(() => {
    let away = 0;
    return effect(() => {
      if (away && !cut.value && link.peek() === "live") untracked(() => void polled.again());
      away = cut.value;
    });
  }, []);
  return polled;
}

/** `useAsked`, that asks at once too when something comes on `topic`; `unheard` says why that cannot be told live. */
export function useHeard<T>(topic: string, ask: () => Promise<T>, every: number) {
  const polled = useAsked(ask, every);
  const unheard = useSignal("");
  useEffect(() => subscribe(topic, () => void polled.again(), (why) => void (unheard.value = why)), []);
  return { ...polled, unheard };
}

/** What is wrong: where the connection is cut that, and not that nothing else answers either. */
export function Trouble({ text }: { text: string }) {
  if (!cut.value) return html`<${Failure} text=${text} />`;
  return html`<p class="notice warn"><strong>Reconnecting.</strong> This is how it was at ${clock(cut.value)}; what comes meanwhile is added as soon as the connection is back.</p>`;
}
