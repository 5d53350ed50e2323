/** Where the ends of lines are marked: each beside its line, and none upon another. */

/** The heights `wanted`, moved until each is `apart` from the next and none below `bottom`; their order stays. */
export function spread(wanted: number[], apart: number, bottom: number): number[] {
  const made = [...wanted];
  const down = wanted.map((_, n) => n).sort((a, b) => wanted[a]! - wanted[b]!);
  let least = -Infinity;
  for (const n of down) least = (made[n] = Math.max(made[n]!, least)) + apart;
  let most = bottom;
  for (const n of down.reverse()) most = (made[n] = Math.min(made[n]!, most)) - apart;
  return made;
}
