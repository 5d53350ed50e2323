/** The basket: how many of what, kept in this tab for whoever is signed in. */
import { computed, signal } from "@preact/signals";
import { person } from "../frame/session.ts";

/** As the shop has it (ecommerce/limits.py). */
export const QUANTITY_MOST = 999;
export const LINES_MOST = 50;

/** What is kept under `name` in this tab, of one person; another one finds nothing. */
export function keep<T>(name: string) {
  const key = `topic-gateway.shop.${name}`;
  const all = signal(JSON.parse(sessionStorage.getItem(key) ?? "null") as { of: string; what: T } | null);
  return {
    value: computed(() => (all.value?.of === person.value ? all.value.what : undefined)),
    set(what?: T): void {
      all.value = what === undefined ? null : { of: person.value, what };
      if (all.value) sessionStorage.setItem(key, JSON.stringify(all.value));
      else sessionStorage.removeItem(key);
    },
  };
}

const kept = keep<Record<string, number>>("basket");
export const basket = computed(() => new Map(Object.entries(kept.value.value ?? {})));
export const pieces = computed(() => [...basket.value.values()].reduce((sum, one) => sum + one, 0));

/** Have `quantity` of an article in the basket; with 0 it is taken out. */
export function put(sku: string, quantity: number): void {
  const lines = new Map(basket.value);
  if (quantity <= 0) lines.delete(sku);
  else if (lines.has(sku) || lines.size < LINES_MOST) lines.set(sku, Math.min(Math.floor(quantity), QUANTITY_MOST));
  kept.set(Object.fromEntries(lines));
}

export const empty = (): void => kept.set();
