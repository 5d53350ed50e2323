/** The HTTP API as any client has it: JSON in and out, problem+json where it goes wrong. */
import { signOut, token } from "./session.ts";

/** Where the gateway is: pages' modules lie in its `assets/`. */
const here = import.meta.url;
export const root = import.meta.env.DEV ? new URL("/", here) : new URL("..", here);

/** A refusal: `detail` says what was wrong and what to do. */
export class Problem extends Error {
  constructor(
    detail: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(detail);
  }
}

export async function ask(method: string, path: string, body?: unknown, more: RequestInit = {}): Promise<Response> {
  const headers = new Headers(more.headers);
  if (token.value) headers.set("authorization", `Bearer ${token.value}`);
  if (body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
  const data = body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body);
  let answer: Response;
  try {
    answer = await fetch(new URL(path, root), { ...more, method, headers, body: data });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem("the gateway does not answer; is it running?", 0, "away");
  }
  if (answer.ok) return answer;
  const told = await problem(answer);
  if (answer.status === 401 && token.value) signOut(`That token is refused: ${told.message}`);
  throw told;
}

/** Ask, and return the JSON that is answered. */
export async function call<T>(method: string, path: string, body?: unknown, more?: RequestInit): Promise<T> {
  return (await ask(method, path, body, more)).json() as Promise<T>;
}

/** Ask, and yield each line of an answer of many (NDJSON). */
export async function* lines<T>(method: string, path: string, body?: unknown): AsyncGenerator<T> {
  const answer = await ask(method, path, body);
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
    return new Problem(told.detail ?? answer.statusText, answer.status, told.type?.split(":").pop() ?? "");
  } catch {
    return new Problem(`the gateway answers ${answer.status}`, answer.status, "");
  }
}

/** What to tell a person about an error. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
