// Rooms at random, whose entries come live in any order, twice, late or not at all, joined with histories: a seed a room.
import { Timeline } from "../../web/src/chat/timeline.ts";

const [rooms, sabotaged] = [Number(process.argv[2]), process.argv[3] === "sabotaged"];

function chance(seed) {
  return () => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32);
}

/** A room, and what a history answers of it: messages as they are now. */
function written(next) {
  const room = [];
  const grow = () => {
    const seq = room.length + 1;
    const of = room.filter((one) => one.kind === "message");
    const target = of[Math.floor(next() * of.length)];
    const what = next();
    if (target && what < 0.2) room.push({ seq, kind: "edited", of: target.seq, text: `${target.seq} by ${seq}` });
    else if (target && what < 0.3) room.push({ seq, kind: "deleted", of: target.seq });
    else room.push({ seq, kind: "message", text: String(seq) });
  };
  const now = () => {
    const entries = room.map((one) => ({ ...one }));
    for (const { kind, of, seq, text } of room) {
      const target = entries[of - 1];
      if (kind === "edited" && !target.deleted) Object.assign(target, { text, edited: seq });
      if (kind === "deleted") {
        target.deleted = true;
        delete target.text;
      }
    }
    return entries;
  };
  return { room, grow, now };
}

function follow(seed) {
  const next = chance(seed);
  const { room, grow, now } = written(next);
  const timeline = new Timeline();
  const [late, fresh, newest] = [[], new Set(), new Map()];
  let wrong = "";
  const take = (entry) => {
    if (!timeline.take(entry)) return;
    if (entry.edited) newest.set(entry.seq, entry.edited);
    if (fresh.has(entry.seq)) wrong = `seed ${seed}: ${entry.seq} was new twice`;
    fresh.add(entry.seq);
  };
  for (let n = 5 + next() * 20; n > 0; n--) grow();
  let begun = false;
  for (let step = 0; step < 60; step++) {
    grow();
    if (next() < 0.8) late.push(room.at(-1)); // else it is lost on the way
    if (next() < 0.5 && late.length) take(late.splice(Math.floor(next() * late.length), 1)[0]);
    if (next() < 0.2) take(room[Math.floor(next() * room.length)]); // again, as it was said
    if (!begun && next() < 0.2) {
      timeline.begin(now().slice(-7).reverse());
      begun = true;
    }
    if (begun && next() < 0.2) {
      const low = timeline.low - (next() < 0.3 ? 2 : 0); // what was asked for before others were forgotten
      timeline.before(now().slice(Math.max(0, low - 5), Math.max(0, low - 1)).reverse());
    }
    if (begun && timeline.hole && next() < 0.5) for (const one of now().slice(timeline.top, timeline.top + 10)) take(one);
    if (begun && next() < 0.05) timeline.trim(20);
    for (const { seq, edited = 0 } of timeline.entries) {
      if (edited < (newest.get(seq) ?? 0)) wrong = `seed ${seed}: ${seq} says what it said before`;
      newest.set(seq, edited);
    }
  }
  if (!begun) timeline.begin(now().slice(-7).reverse());
  if (!sabotaged) for (const one of now().slice(timeline.top)) take(one);
  const said = (entries) => JSON.stringify(entries.map(({ seq, kind, text, deleted }) => [seq, kind, text ?? "", !!deleted]));
  if (wrong) return wrong;
  if (timeline.top !== room.length) return `seed ${seed}: ends at ${timeline.top}, the room at ${room.length}`;
  if (timeline.hole) return `seed ${seed}: a hole is left`;
  const wanted = said(now().slice(timeline.low - 1).map((one) => (one.kind === "message" ? one : room[one.seq - 1])));
  return said(timeline.entries) === wanted ? "" : `seed ${seed}: ${said(timeline.entries)} instead of ${wanted}`;
}

const wrong = Array.from({ length: rooms }, (_, seed) => follow(seed + 1)).filter(Boolean);
console.log(JSON.stringify({ rooms, wrong: wrong.length, first: wrong[0] ?? "" }));
