/** The tokens of an account: renewed before they end, once for all that ask, and handed to the tabs that share them. */
import { root } from "./root.ts";
import { type Account, account, signIn, signOut, token } from "./session.ts";

/** What accounts gives who logs in. */
export interface Tokens {
  access: string;
  /** Seconds. */
  expires_in: number;
  refresh: string;
}

/** Part of a token's life after which it is renewed: what is asked with it takes its time too. */
const RENEWED_AT = 0.8;
/** How long accounts may take to answer, in ms, before we go on with what we have. */
const PATIENCE = 10_000;

// A tab that is duplicated has its original's refresh token, which is good once: who renews tells the other.
const tabs = new BroadcastChannel("topic-gateway.account");
tabs.onmessage = ({ data }: MessageEvent<{ refresh: string; tokens?: Tokens }>) => {
  if (account.value?.refresh !== data.refresh) return;
  if (data.tokens) enter(data.tokens, account.value.name);
  else signOut("You signed out in another tab.");
};

/** Begin, or go on, with these tokens. */
export function enter({ access, expires_in, refresh }: Tokens, name: string): void {
  signIn(access, { name, refresh, due: Date.now() + expires_in * 1000 * RENEWED_AT });
}

/** Sign out, here and at accounts: the refresh token is over, whoever else has it. */
export function leave(): void {
  const refresh = account.value?.refresh;
  if (refresh !== undefined) {
    // It need not be waited for: without an answer the token is still forgotten here.
    post("logout", { refresh }, { keepalive: true }).catch(() => undefined);
    tabs.postMessage({ refresh });
  }
  signOut();
}

let renewing: Promise<string> | undefined;

/**
 * The token to ask with: renewed where it is time, and the one that we have where no newer can be had now. With `than`
 * another one than that, which was refused or is over; raises where there is none. Empty once the session is over.
 */
export async function fresh(than?: string): Promise<string> {
  const one = account.value;
  if (one === undefined || (token.value !== than && Date.now() < one.due)) return token.value;
  renewing ??= renew(one).finally(() => (renewing = undefined));
  return than === undefined ? renewing.catch(() => token.value) : renewing;
}

async function renew({ refresh, name }: Account): Promise<string> {
  const answer = await post("refresh", { refresh }, { signal: AbortSignal.timeout(PATIENCE) });
  if (account.value?.refresh !== refresh) return token.value; // signed out meanwhile, or another tab was first
  if (answer.status === 401) {
    signOut("Your session is over: it was ended, or not used for long. Sign in again.");
    return "";
  }
  if (!answer.ok) throw new Error(`accounts answers ${answer.status}`);
  const tokens = (await answer.json()) as Tokens;
  enter(tokens, name);
  tabs.postMessage({ refresh, tokens });
  return tokens.access;
}

function post(what: string, body: unknown, more: RequestInit): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(new URL(`accounts/users/${what}`, root), { ...more, method: "POST", headers, body: JSON.stringify(body) });
}
