/** Drawing: in a frame, and not in each, however much comes. The browser gives a hidden tab no frames: it draws nothing. */
import { effect, signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";

/** Ask for `draw` in the next frame; asked again before that, or within `pause` ms, it is one. */
export function useFrames(draw: () => void, pause: number): () => void {
  const newest = useRef(draw);
  newest.current = draw;
  const frames = useMemo(() => {
    let waits: ReturnType<typeof setTimeout> | undefined;
    let asked = 0;
    let drawn = 0;
    const due = () => {
      waits = undefined;
      asked ||= requestAnimationFrame((at) => {
        asked = 0;
        drawn = at;
        newest.current();
      });
    };
    return {
      ask: () => (waits ??= setTimeout(due, drawn + pause - performance.now())),
      stop: () => {
        clearTimeout(waits);
        cancelAnimationFrame(asked);
      },
    };
  }, []);
  useEffect(() => frames.stop, []);
  return frames.ask;
}

/** The time in ms, of which ages are told. It goes on once a second, and rests while nobody looks. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

/** Do something once a second, while somebody looks. */
export const useSeconds = (then: () => void) => useEffect(() => effect(() => void (now.value, then())), []);
