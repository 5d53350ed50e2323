/** What is sold, at which price now, and whether there is any. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { call, Problem, reason } from "../frame/api.ts";
import { subscribe } from "../frame/live.ts";

export interface Article {
  sku: string;
  title: string;
  price: number;
  currency: string;
  sold: boolean;
  version: number;
}

/** Pause before a list that did not come is asked for again, in ms. */
const AGAIN = 3_000;
/** Articles that are shown, each of which inventory is asked about; a shop with more needs a search. */
const MOST = 100;

export const articles = signal<ReadonlyMap<string, Article>>(new Map());
/** Numbers of articles whose price changed while we looked. */
export const repriced = signal<ReadonlySet<string>>(new Set());
/** How many can be ordered; absent where nobody knows. */
export const left = signal<ReadonlyMap<string, number>>(new Map());
export const failed = signal("");
export const loaded = signal(false);

export const titled = (sku: string): string => articles.value.get(sku)?.title ?? sku;

/** What came may be older than what is known: the list and the topic are asked at the same time. */
function learn(one: Article): void {
  const known = articles.value.get(one.sku);
  if (known ? known.version >= one.version : articles.value.size >= MOST) return;
  articles.value = new Map(articles.value).set(one.sku, one);
  if (known !== undefined && known.price !== one.price) repriced.value = new Set(repriced.value).add(one.sku);
}

async function list(): Promise<void> {
  let after: string | null = "";
  while (after !== null && articles.value.size < MOST) {
    const page: { items: Article[]; next: string | null } = await call("GET", `ecommerce/catalog/?${new URLSearchParams({ after })}`);
    page.items.forEach(learn);
    after = page.next;
  }
}

async function count(sku: string): Promise<void> {
  try {
    const { available } = await call<{ available: number }>("GET", `ecommerce/inventory/${sku}`);
    left.value = new Map(left.value).set(sku, available);
  } catch (error) {
    // There never was any of it; and where inventory is away, nobody knows.
    if (error instanceof Problem && error.status === 404) left.value = new Map(left.value).set(sku, 0);
  }
}

/** Load the catalog, and follow its prices while the view is there. */
export function useCatalog(): void {
  useEffect(() => {
    let again: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    const load = async () => {
      try {
        await list();
        if (over) return;
        failed.value = "";
        loaded.value = true;
        for (const sku of articles.value.keys()) void count(sku); // anew: others buy too
      } catch (error) {
        if (over) return;
        failed.value = reason(error);
        clearTimeout(again);
        again = setTimeout(load, AGAIN);
      }
    };
    void load();
    const stop = subscribe(
      "ecommerce/catalog/+/priced",
      ({ data }) => {
        const one = data as Article;
        const known = articles.value.has(one.sku);
        learn(one);
        if (!known && articles.value.has(one.sku)) void count(one.sku);
      },
      // Subscribed, and something went wrong before: it may be good again.
      (why) => (why ? (failed.value = why) : failed.value && void load()),
    );
    return () => {
      over = true;
      clearTimeout(again);
      stop();
    };
  }, []);
}
