/** The checkout: one order for one key, however often it is sent, until an answer is there. */
import { signal } from "@preact/signals";
import { call, Problem, reason } from "../frame/api.ts";
import { person } from "../frame/session.ts";
import { basket, empty, keep } from "./basket.ts";

export interface Placed {
  order: string;
}

/** An order that was sent, and whose answer did not come yet. */
interface Sent {
  key: string;
  /** As it was sent: another body under the same key would be another order. */
  body: string;
  /** Milliseconds since 1970. */
  at: number;
}

/** Pauses between tries, in ms; after the last one a person decides. */
const PAUSES = [1000, 2000, 4000, 8000];
/** How long an answer may take, in ms: over a connection that is silent nothing would ever come. */
const PATIENCE = 60_000;
/** How long the shop remembers a key, in ms, less an hour (ecommerce/limits.py, KEY_KEPT): later it is a new order. */
const REMEMBERED = 23 * 3_600_000;

const kept = keep<Sent>("order");
/** Whether an order is out whose answer we do not have: the basket is what it was until we know. */
export const open = kept.value;
export const busy = signal(false);
export const failed = signal("");

/** Place what is in the basket, or ask what became of it; returns the order, or nothing where `failed` says why. */
export async function place(method: string): Promise<string | undefined> {
  if (busy.value) return undefined;
  const by = person.value;
  busy.value = true;
  failed.value = "";
  try {
    if (open.value === undefined) {
      const lines = [...basket.value].map(([sku, quantity]) => ({ sku, quantity }));
      kept.set({ key: random(), body: JSON.stringify({ lines, method }), at: Date.now() });
    }
    const { order } = await placed(open.value!);
    kept.set();
    empty();
    return order;
  } catch (error) {
    // Whoever is here now did not order it.
    if (person.value === by) failed.value = reason(error);
    return undefined;
  } finally {
    busy.value = false;
  }
}

async function placed({ key, body, at }: Sent): Promise<Placed> {
  const by = person.value;
  if (Date.now() - at > REMEMBERED) {
    kept.set();
    throw new Error("This order was sent too long ago to ask what became of it. Look at your orders before you order again.");
  }
  for (let tries = 0; ; tries++) {
    try {
      return await call<Placed>("POST", "ecommerce/orders/", body, { headers: { "idempotency-key": key }, patience: PATIENCE });
    } catch (error) {
      if (person.value !== by) throw error;
      const status = error instanceof Problem ? error.status : 0;
      // A refusal is an answer: nothing was ordered. Of all else nobody knows, so the same is sent again.
      if (status >= 400 && status < 500 && status !== 409 && status !== 429) {
        if (status !== 401) kept.set();
        throw error;
      }
      const pause = PAUSES[tries];
      if (pause === undefined) throw error;
      await new Promise((done) => setTimeout(done, Math.max(pause, error instanceof Problem ? error.wait * 1000 : 0)));
      // Another's order would be placed: it stays with who left, and is asked for when they are here again.
      if (person.value !== by) throw error;
    }
  }
}

/** 128 bits; `randomUUID` is for https and this machine alone. */
function random(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}
