/** Where an order stands, in words: from its row, and from what was told of it since. */
import type { Tone } from "../frame/parts.ts";
import { titled } from "./catalog.ts";

export interface Line {
  sku: string;
  quantity: number;
  price: number;
}

/** An order as its service answers it; amounts in minor units, times in milliseconds since 1970. */
export interface Order {
  order: string;
  lines: Line[];
  status: string;
  payment: string;
  fulfilment: string;
  detail: string;
  total: number;
  currency: string;
  placed: number;
  changed: number;
  ended: number | null;
}

/** What is told of an order at each change; `order` is its status. */
export interface Told {
  what: string;
  order: string;
  payment: string;
  fulfilment: string;
  lines: Line[];
  total: number;
  currency: string;
  detail: string;
  /** Milliseconds since 1970. */
  at: number;
}

/** The way of an order that goes well. */
export const STEPS = [
  { what: "placed", name: "Accepted" },
  { what: "reserved", name: "Goods reserved" },
  { what: "authorized", name: "Card approved" },
  { what: "confirmed", name: "Confirmed" },
  { what: "shipped", name: "Shipped" },
  { what: "completed", name: "Delivered" },
] as const;

/** What happened, in words. */
export const SAID: Record<string, string> = {
  placed: "Accepted",
  reserved: "The goods are reserved",
  authorized: "The card is approved",
  confirmed: "Confirmed",
  shipped: "Shipped",
  captured: "Paid",
  delivered: "Delivered",
  completed: "Delivered",
  declined: "The card was declined",
  voided: "The payment is undone",
  out_of_stock: "Out of stock",
  expired: "Ended: it was not paid in time",
  cancelled: "Cancelled",
};

const ENDS = ["completed", "out_of_stock", "expired", "cancelled"];
const WORDS: Record<string, [Tone, string]> = {
  accepted: ["plain", "accepted"],
  reserved: ["plain", "goods reserved"],
  confirmed: ["good", "confirmed"],
  completed: ["good", "completed"],
  out_of_stock: ["bad", "out of stock"],
  expired: ["bad", "expired"],
  cancelled: ["bad", "cancelled"],
};

/** A word for where an order is. */
export function word({ status, payment, fulfilment }: Pick<Order, "status" | "payment" | "fulfilment">): [Tone, string] {
  if (status === "reserved" && payment === "declined") return ["warn", "card declined"];
  if (status === "confirmed" && fulfilment === "shipped") return ["good", "shipped"];
  if (status === "confirmed" && fulfilment === "delivered") return ["good", "delivered"];
  return WORDS[status] ?? ["plain", status];
}

export interface Standing extends Order {
  tone: Tone;
  word: string;
  /** How it ended, where it ended otherwise than it should; empty else. */
  why: string;
  tracking: string;
}

/** An order as it stands by its row and what was told, whichever is newer; nothing before one of them is there. */
export function standing(row: Order | undefined, told: ReadonlyMap<string, Told>): Standing | undefined {
  const last = [...told.values()].reduce<Told | undefined>((best, one) => (best && best.at > one.at ? best : one), undefined);
  if (row === undefined) return undefined;
  // The clock of a row and that of the log may be of two machines: the end of an order is its end, whoever says it.
  const newer = last !== undefined && row.ended === null && (ENDS.includes(last.order) || last.at >= row.changed);
  const now: Order = newer
    ? { ...row, status: last.order, payment: last.payment, fulfilment: last.fulfilment, detail: last.detail, ended: ENDS.includes(last.order) ? last.at : null }
    : row;
  const [tone, said] = word(now);
  return { ...now, tone, word: said, why: why(now, told), tracking: told.get("shipped")?.detail ?? "" };
}

function why(now: Order, told: ReadonlyMap<string, Told>): string {
  const back = now.payment === "voided" ? "The payment is undone." : "Nothing was charged.";
  switch (now.status) {
    case "out_of_stock":
      return `There is not enough of ${now.detail.split(", ").map(titled).join(", ")}. ${back}`;
    case "expired":
      return `It was not paid, or could not be kept, within 15 minutes. ${back}`;
    case "cancelled":
      return `${told.has("declined") && now.payment === "declined" ? "It was cancelled because no card was good." : "It is cancelled."} ${back}`;
    case "completed":
      return "Your parcel has arrived. Thank you!";
  }
  return "";
}

/** Whom an order waits for, in words. */
export function asked({ status, payment, fulfilment }: Order): string {
  if (status === "accepted") return "The stock room has not answered yet.";
  if (status === "reserved" && payment === "authorized") return "The stock room has not handed the goods out yet.";
  if (status === "reserved") return "The bank has not answered yet.";
  if (fulfilment === "unfulfilled") return "The parcel is not packed yet.";
  return payment === "captured" ? "The parcel is on its way." : "The payment is not booked yet.";
}
