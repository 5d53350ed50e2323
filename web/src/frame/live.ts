/** The live connection: one WebSocket for the page, by the SDK that any application would use. */
import { effect, signal } from "@preact/signals";
import { Centrifuge, type PublicationContext, UnauthorizedError } from "centrifuge";
import { root } from "./api.ts";
import { account, person, signOut, token } from "./session.ts";
import { fresh } from "./tokens.ts";

export type Link = "off" | "connecting" | "live";
export const link = signal<Link>("off");
/** Since when it is cut, in ms; 0 while it stands, and before it stood. */
export const cut = signal(0);
/** Why it does not come back by itself, where the session is good all the same; empty where it does. */
export const crowded = signal("");

/** The SDK's word for our own `disconnect`; with any other it has given up, and does not come back. */
const CALLED = 0;
/** One connection more than a user may have. */
const CROWDED = 3504;
/** The gateway's word for a token that was over. */
const EXPIRED = 109;

export interface Event {
  topic: string;
  id: string;
  data: unknown;
  /** Milliseconds since 1970: when it was published, and when it came here. */
  at: number;
  came: number;
  /** Counts what came to this page: an id may come twice. */
  nth: number;
}

let client: Centrifuge | undefined;
let heardSoFar = 0;

/** The SDK itself, for what needs more than `subscribe`: rpc, subscription tokens. */
export function connected(): Centrifuge {
  if (client === undefined) {
    const url = new URL("connection/websocket", root);
    url.protocol = url.protocol.replace("http", "ws");
    let used = token.value;
    const newer = async () => {
      used = await fresh(used);
      if (!used) throw new UnauthorizedError("signed out");
      return used;
    };
    client = new Centrifuge(url.href, { token: used, getToken: account.value ? newer : null });
    const now = (state: Link) => {
      const stood = link.value === "live";
      link.value = state; // first: who hears of the cut's end asks whether it is live
      if (state === "live") cut.value = 0;
      else if (stood) cut.value = Date.now();
    };
    client.on("connecting", () => now("connecting"));
    client.on("connected", () => now("live"));
    client.on("disconnected", ({ code, reason }) => {
      now("off");
      if (code === CROWDED) crowded.value = "You have this open in too many places: close one of them.";
      // A new token that was over when it arrived: the SDK gives up, and an account has another.
      else if (code === EXPIRED && account.value) client?.connect();
      else if (code !== CALLED) signOut(`The connection was ended: ${reason}`);
    });
    client.connect();
  }
  return client;
}

/** Try once more where it was crowded. */
export function again(): void {
  crowded.value = "";
  client?.connect();
}

// Another person is another connection; a newer token of the same one is not.
effect(() => {
  void person.value;
  client?.disconnect();
  client = undefined;
  cut.value = 0;
  crowded.value = "";
});

/**
 * Hear what passes `filter` until the function that is returned is called. `failed` says why it cannot be, and with an
 * empty reason that it can be again.
 */
export function subscribe(filter: string, heard: (event: Event) => void, failed: (why: string) => void): () => void {
  const on = connected();
  const one = on.getSubscription(filter) ?? on.newSubscription(filter);
  one.on("publication", (publication: PublicationContext) => {
    const tags = publication.tags as Record<string, string> | undefined;
    const came = Date.now();
    const at = Number(tags?.ts ?? came);
    heard({ topic: tags?.topic ?? filter, id: tags?.id ?? "", data: publication.data, at, came, nth: ++heardSoFar });
  });
  one.on("subscribed", () => failed(""));
  one.on("unsubscribed", ({ code, reason }) => code > 0 && failed(reason));
  one.on("error", ({ error }) => failed(error.message));
  one.subscribe();
  return () => {
    one.removeAllListeners();
    one.unsubscribe();
    on.removeSubscription(one);
  };
}
