/** Said where the live connection is cut: what is shown is what was true then. */
import { effect, untracked, useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect } from "preact/hooks";
import { announce } from "../frame/announce.ts";
import { clock } from "../frame/format.ts";
import { link } from "../frame/live.ts";
import { Failure } from "../frame/parts.ts";
import { usePoll } from "../frame/poll.ts";

/** Call `cut` when the connection ends, and `back` when it stands again; before it stood for the first time, neither. */
function useLink(cut: () => void, back: () => void): void {
  useEffect(() => {
    let stood = false;
    let away = false;
    return effect(() => {
      const live = link.value === "live";
      if (live === away && stood) untracked(live ? back : cut);
      stood ||= live;
      away = stood && !live;
    });
  }, []);
}

/** `usePoll`, that asks at once when the connection is back: what failed meanwhile is true no more. */
export function useAsked<T>(ask: () => Promise<T>, every: number) {
  const polled = usePoll(ask, every);
  useLink(
    () => {},
    () => void polled.again(),
  );
  return polled;
}

/** Since when it is cut, in ms; 0 while it stands. */
function useCut() {
  const since = useSignal(0);
  useLink(
    () => {
      announce("The connection is cut: reconnecting");
      since.value = Date.now();
    },
    () => {
      announce("The connection is back");
      since.value = 0;
    },
  );
  return since;
}

/** What is wrong: where the connection is cut that, and not that nothing else answers either. */
export function Trouble({ text }: { text: string }) {
  const since = useCut();
  if (!since.value) return html`<${Failure} text=${text} />`;
  return html`<p class="notice warn"><strong>Reconnecting.</strong> This is how it was at ${clock(since.value)}; what comes meanwhile is added as soon as the connection is back.</p>`;
}
