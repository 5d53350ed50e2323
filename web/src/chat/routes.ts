/** What chat answers over HTTP (chat/README.md), and what it tells. */
import { ask, call } from "../frame/api.ts";

export interface Room {
  id: string;
  kind: "public" | "private" | "direct";
  name: string;
  role: "owner" | "member" | "none";
  /** Number of the newest entry; up to where is read; messages of others that are not. */
  seq: number;
  read_seq: number;
  unread: number;
  /** In a direct room: who else is there; empty where nobody is any more. */
  other: string;
  other_name: string;
}

export interface Member {
  user: string;
  role: string;
  name: string;
}

/** Something that happened in a room. In a history a message is as it is now. */
export interface Entry {
  seq: number;
  kind: "message" | "edited" | "deleted" | "joined" | "left";
  author: string;
  at: number;
  id?: string;
  text?: string;
  of?: number;
  member?: string;
  edited?: number;
  deleted?: boolean;
}

/** What one's own devices are told. */
export interface Notice {
  kind: "read" | "joined" | "left" | "refused";
  room: string;
  read_seq?: number;
  unread?: number;
}

export interface Paged<T> {
  items: T[];
  next: string | null;
}

/** Entries of one question, and pages of a list that are followed before a page says that there is more. */
export const PAGE = 60;
const PAGES = 20;

/** How long an answer may take, in ms: over a connection that is silent nothing would ever come, and nothing fail. */
const PATIENCE = 10_000;

const at = (path: string) => `chat/rooms/${path}`;
const soon = () => ({ signal: AbortSignal.timeout(PATIENCE) });
const get = <T>(path: string) => call<T>("GET", at(path), undefined, soon());
const put = (path: string, body?: unknown) => ask("PUT", at(path), body, soon());

async function all<T>(path: string): Promise<T[]> {
  const found: T[] = [];
  let after = "";
  for (let n = 0; n < PAGES; n++) {
    const page = await get<Paged<T>>(`${path}?limit=100&after=${encodeURIComponent(after)}`);
    found.push(...page.items);
    if (page.next === null) break;
    after = page.next;
  }
  return found;
}

const seat = (room: string, user: string) => `${room}/members/${encodeURIComponent(user)}`;

export const mine = () => all<Room>("");
export const open = () => all<{ id: string; name: string }>("public");
export const members = (room: string) => all<Member>(`${room}/members`);
export const one = (room: string) => get<Room>(room);
export const create = (name: string, kind: string, key: string) =>
  call<Room>("POST", at(""), { name, kind, key }, soon());
export const direct = (user: string) => call<Room>("PUT", at(`direct/${encodeURIComponent(user)}`), undefined, soon());
export const join = (room: string) => call<Room>("POST", at(`${room}/join`), undefined, soon());
export const leave = (room: string) => ask("POST", at(`${room}/leave`), undefined, soon());
export const invite = (room: string, user: string) => put(seat(room, user));
export const sendOut = (room: string, user: string) => ask("DELETE", at(seat(room, user)), undefined, soon());
export const callMe = (name: string) => put("me", { name });
export const read = (room: string, seq: number) => put(`${room}/read`, { seq });
export const typing = (room: string) => ask("POST", at(`${room}/typing`), undefined, soon());
export const presence = async (room: string) => (await get<{ users: string[] }>(`${room}/presence`)).users;
export const token = async (room: string, channel: string) =>
  (await call<{ token: string }>("POST", at(`${room}/tokens`), { channel }, soon())).token;

/** What is behind `after`, the oldest first; with `back` what is before it, the newest first, from the end by default. */
export function history(room: string, after?: number, back = false): Promise<Paged<Entry>> {
  const behind = after === undefined ? "" : `&after=${after}`;
  return get<Paged<Entry>>(`${room}/history?limit=${PAGE}&back=${back}${behind}`);
}
