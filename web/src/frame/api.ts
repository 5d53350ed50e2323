/** The HTTP API as any client has it: JSON in and out, problem+json where it goes wrong. */
import { root } from "./root.ts";
import { account, person, signOut, token } from "./session.ts";
import { fresh } from "./tokens.ts";

export { root };

/** A refusal: `detail` says what was wrong and what to do. */
export class Problem extends Error {
  constructor(
    detail: string,
    readonly status: number,
    readonly code: string,
    /** Seconds after which to ask again; 0 where it does not say. */
    readonly wait = 0,
  ) {
    super(detail);
  }

  /** The SDK tells errors as strings: with no "Error: " before what people read. */
  override toString(): string {
    return this.message;
  }
}

export interface More extends RequestInit {
  /** How long the answer may take, in ms; 0 where it goes on for as long as it does. */
  patience?: number;
}

/** How long an answer may take, in ms: over a connection that is silent nothing would ever come, and nothing fail. */
const PATIENCE = 30_000;
const AWAY = new Problem("the gateway does not answer; is it running?", 0, "away");
const ANOTHER = new Problem("whoever asked this is not signed in here any more", 0, "another");

/** What one person asks is never sent as another, who signed in meanwhile, and the answer is for nobody else. */
export async function ask(method: string, path: string, body?: unknown, { patience = PATIENCE, ...own }: More = {}): Promise<Response> {
  const ends = [own.signal, patience > 0 && AbortSignal.timeout(patience)].filter((one) => one instanceof AbortSignal);
  const more = { ...own, signal: AbortSignal.any(ends) };
  const by = person.value;
  let used = await fresh();
  if (person.value !== by) throw ANOTHER;
  let answer = await sent(used, method, path, body, more);
  if (answer.status === 401 && account.value) {
    // Not at its end, and refused: taken back, or a clock was set.
    used = await fresh(used).catch(() => Promise.reject(AWAY));
    if (used && person.value === by) answer = await sent(used, method, path, body, more);
  }
  if (person.value !== by) throw ANOTHER;
  if (answer.ok) return answer;
  const told = await problem(answer);
  if (told.code.includes("token") && used && used === token.value) signOut(`That token is refused: ${told.message}`);
  throw told;
}

/** Ask with this token, or as nobody with none, whoever is signed in. */
export async function callAs<T>(as: string, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await sent(as, method, path, body, { signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw await problem(answer);
  return json<T>(answer);
}

async function sent(as: string, method: string, path: string, body: unknown, more: RequestInit): Promise<Response> {
  const headers = new Headers(more.headers);
  if (as) headers.set("authorization", `Bearer ${as}`);
  if (body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
  const data = body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body);
  try {
    return await fetch(new URL(path, root), { ...more, method, headers, body: data });
  } catch (error) {
    throw away(error);
  }
}

const away = (error: unknown) => (error instanceof DOMException && error.name === "AbortError" ? error : AWAY);

/** The rest of an answer may stay away as the whole of it may. */
const json = <T>(answer: Response): Promise<T> => answer.json().catch((error) => Promise.reject(error instanceof SyntaxError ? error : away(error)));

/** Ask, and return the JSON that is answered. */
export async function call<T>(method: string, path: string, body?: unknown, more?: More): Promise<T> {
  return json<T>(await ask(method, path, body, more));
}

/** Ask, and yield each line of an answer of many (NDJSON). */
export async function* lines<T>(method: string, path: string, body?: unknown): AsyncGenerator<T> {
  const answer = await ask(method, path, body, { patience: 0 });
  let rest = "";
  const decoder = new TextDecoder();
  const reader = answer.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const whole = rest.split("\n");
    rest = whole.pop() ?? "";
    for (const line of whole) if (line) yield JSON.parse(line) as T;
    if (done) return;
  }
}

async function problem(answer: Response): Promise<Problem> {
  try {
    const told = (await answer.json()) as { detail?: string; type?: string };
    const wait = Number(answer.headers.get("retry-after")) || 0;
    return new Problem(told.detail ?? answer.statusText, answer.status, told.type?.split(":").pop() ?? "", wait);
  } catch {
    return new Problem(`the gateway answers ${answer.status}`, answer.status, "");
  }
}

/** What to tell a person about an error. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
