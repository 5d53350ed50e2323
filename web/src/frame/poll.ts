/** Something asked again and again while a page is looked at. */
import { type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { reason } from "./api.ts";

export interface Polled<T> {
  value: Signal<T | undefined>;
  /** Why the last question went unanswered; empty where it did not. */
  error: Signal<string>;
  again: () => Promise<void>;
}

/** Ask now, and `every` ms after the last answer; a hidden page asks nothing. */
export function usePoll<T>(ask: () => Promise<T>, every: number): Polled<T> {
  const polled = useMemo(() => {
    const value = signal<T | undefined>(undefined);
    const error = signal("");
    const again = async () => {
      try {
        value.value = await ask();
        error.value = "";
      } catch (failed) {
        error.value = reason(failed);
      }
    };
    return { value, error, again };
  }, []);
  useEffect(() => {
    let over = false;
    let next: ReturnType<typeof setTimeout>;
    const turn = async () => {
      if (!document.hidden) await polled.again();
      if (!over) next = setTimeout(turn, every);
    };
    void turn();
    return () => {
      over = true;
      clearTimeout(next);
    };
  }, []);
  return polled;
}
