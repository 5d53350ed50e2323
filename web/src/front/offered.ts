/** What runs here: whether it is well, and what of it is for whoever looks, as the gateway's own document tells it. */
import { useRef } from "preact/hooks";
import { call, Problem } from "../frame/api.ts";
import { type Polled, usePoll } from "../frame/poll.ts";
import { root } from "../frame/root.ts";

const EVERY = 5_000;

export interface Offered {
  ready: boolean;
  /** What it says of itself. */
  why: string;
  /**
   * Services with routes, as `chat.rooms`, and parts of the gateway itself, as `dead letters`: those that are for who
   * asks. Undefined while nobody knows; empty where nobody comes in without a token.
   */
  parts: ReadonlySet<string> | undefined;
  /** Whether its documents are answered to a browser that follows a link, which brings no token. */
  open: boolean;
}

interface Document {
  tags: { name: string }[];
  paths: Record<string, { get?: { security?: object[] } }>;
}

type Known = Pick<Offered, "parts" | "open">;

async function read(): Promise<Known> {
  try {
    const { tags, paths } = await call<Document>("GET", "openapi.json");
    // `{}` is: as nobody (OpenAPI 3.1, Security Requirement Object).
    const open = paths["/openapi.json"]?.get?.security?.some((one) => Object.keys(one).length === 0) ?? false;
    return { parts: new Set(tags.map((one) => one.name)), open };
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return { parts: new Set(), open: false };
    throw error;
  }
}

export function useOffered(): Polled<Offered> {
  const known = useRef<Known>(undefined);
  return usePoll(async () => {
    const answer = await fetch(new URL("readyz", root)).catch(() => undefined);
    // What there is does not change while it runs; it is asked for again until it is answered.
    known.current ??= await read().catch(() => undefined);
    const said = answer && (await answer.text()).trim();
    const ready = answer?.ok ?? false;
    return { parts: undefined, open: false, ...known.current, ready, why: ready ? "ready" : said || "it does not answer" };
  }, EVERY);
}
