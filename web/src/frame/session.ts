/** The session: whose token this page has. It stays in this tab, and ends with it. */
import { batch, computed, signal } from "@preact/signals";

const KEY = "topic-gateway.token";
const ACCOUNT = "topic-gateway.account";
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

export interface Who {
  kind: string;
  name: string;
  /** Milliseconds since 1970; absent where it has no end. */
  until?: number;
}

/** What goes with the token of somebody who has an account: `tokens.ts` renews it. */
export interface Account {
  /** As they call themselves. */
  name: string;
  /** Good for one renewal. */
  refresh: string;
  /** When the token is to be renewed: milliseconds since 1970, by this machine's clock, which may be wrong. */
  due: number;
}

export const token = signal(given() ?? sessionStorage.getItem(KEY) ?? "");
export const account = signal(kept());
/** Why the last session ended, for the form that asks for another token. */
export const ended = signal("");
/** Who this is. Only shown: the gateway judges. */
export const me = computed(() => who(token.value));
/** One word for who this is, that a newer token of theirs does not change. */
export const person = computed(() => (me.value ? `${me.value.kind}:${me.value.name}` : token.value));

/**
 * The token of a link `…#token=…`, as `gateway up --demo` prints it. On this machine alone: elsewhere such a link could
 * make somebody act under another's name without knowing. It leaves the address before anything is shown or loaded.
 */
function given(): string | undefined {
  const found = /^#token=([\w.~-]+)$/.exec(location.hash);
  if (found === null) return undefined;
  history.replaceState(null, "", location.pathname + location.search);
  if (!LOOPBACK.includes(location.hostname)) return undefined;
  sessionStorage.setItem(KEY, found[1]!);
  sessionStorage.removeItem(ACCOUNT);
  return found[1];
}

function kept(): Account | undefined {
  const text = sessionStorage.getItem(ACCOUNT);
  return text === null ? undefined : (JSON.parse(text) as Account);
}

// A link that is opened where the page is already there loads nothing anew.
addEventListener("hashchange", () => {
  const found = given();
  if (found !== undefined) signIn(found);
});

export function signIn(text: string, of?: Account): void {
  const one = text.trim();
  sessionStorage.setItem(KEY, one);
  if (of) sessionStorage.setItem(ACCOUNT, JSON.stringify(of));
  else sessionStorage.removeItem(ACCOUNT);
  batch(() => {
    ended.value = "";
    account.value = of;
    token.value = one;
  });
}

export function signOut(why = ""): void {
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(ACCOUNT);
  batch(() => {
    ended.value = why;
    account.value = undefined;
    token.value = "";
  });
}

/** What a token says of itself. Only shown: the gateway judges. */
export function who(text: string): Who | undefined {
  const part = text.split(".")[1];
  if (part === undefined) return undefined;
  try {
    const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof claims !== "object" || claims === null || !("sub" in claims)) return undefined;
    const { sub, role, exp } = claims as { sub: unknown; role?: unknown; exp?: unknown };
    const until = typeof exp === "number" ? { until: exp * 1000 } : {};
    return { kind: typeof role === "string" ? role : "user", name: String(sub), ...until };
  } catch {
    return undefined;
  }
}
