/** The frame of every page: who is there, the connection, the views, and a form for those who bring no token yet. */
import { html } from "htm/preact";
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { type ComponentChildren, render, type VNode } from "preact";
import { useEffect } from "preact/hooks";
import { AccountForm } from "./account.ts";
import { Announcer } from "./announce.ts";
import { root } from "./api.ts";
import { again, crowded, link } from "./live.ts";
import { Badge } from "./parts.ts";
import { account, ended, me, person, signIn, token } from "./session.ts";
import { leave } from "./tokens.ts";
import "./style.css";

export interface View {
  /** The address's hash, up to a slash; what follows it is the view's own (`rest`). */
  id: string;
  name: string | ReadonlySignal<string>;
  show: () => VNode;
}

const hash = signal(location.hash.slice(1));
addEventListener("hashchange", () => (hash.value = location.hash.slice(1)));
/**
 * As a room or an order may be called. A link could say more, `..%2F` or `%3F`, and have this page ask another path, with
 * the token of whoever followed it.
 */
const NAME = /^(?!\.*$)[A-Za-z0-9_.@:-]{1,64}$/;
/** What the hash says behind its view and a slash: which of several. */
export const rest = computed(() => {
  const text = hash.value.split("/")[1] ?? "";
  return NAME.test(text) ? text : "";
});

const LINK = { live: ["good", "live"], connecting: ["warn", "connecting"], off: ["plain", "not connected"] } as const;

interface Shape {
  title: string;
  views: View[];
  /** Whom this page is for: of which role a token has to be, or what the people are called whom it is for. */
  role: string;
  /** How one comes by a token. */
  hint?: ComponentChildren;
  /** How one comes in: by a token, by an account of one of `kinds`, or by either. */
  needs?: "token" | "person" | "either";
  /** Kinds of people that a page for a person is for. */
  kinds?: string[];
}

function Top({ title, views, current }: { title: string; views: View[]; current?: View | undefined }) {
  const [tone, word] = LINK[link.value];
  return html`<header class="top">
    <a class="home" href=${root.href}><img src=${new URL("favicon.svg", root).href} alt="" width="28" height="28" /> Topic Gateway</a>
    <h1>${title}</h1>
    ${me.value &&
    html`<div class="me">
      ${link.value !== "off" && html`<${Badge} tone=${tone}>${word}<//>`}
      <span class="who">${!(account.value && me.value.kind === "user") && me.value.kind} <strong>${account.value?.name ?? me.value.name}</strong></span>
      <button class="quiet" type="button" onClick=${leave}>Sign out</button>
    </div>`}
    ${views.length > 1 &&
    html`<nav aria-label="Views">
      ${views.map(
        (one) => html`<a href=${`#${one.id}`} aria-current=${one === current ? "page" : null}>${one.name}</a>`,
      )}
    </nav>`}
  </header>`;
}

function TokenForm({ role, hint, needs = "token" }: Shape) {
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.target as HTMLFormElement).get("token");
    if (typeof given === "string" && given.trim()) signIn(given);
  };
  return html`<form class="card" method="post" onSubmit=${send}>
    <h2>Sign in with a token</h2>
    ${needs === "token" && ended.value && html`<p class="notice bad" role="alert">${ended}</p>`}
    <label for="token">Token of an account with the role <strong>${role}</strong></label>
    <input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required />
    <p class="hint">${hint} It stays in this tab, and is forgotten when you close it.</p>
    <button type="submit">Sign in</button>
  </form>`;
}

function SignIn(shape: Shape) {
  const { needs = "token", role } = shape;
  const instead = token.value
    ? `You are signed in as ${me.value ? `${me.value.kind} ${account.value?.name ?? me.value.name}` : "somebody else"}; this page is for ${role}s. Whoever signs in here takes that place in this tab.`
    : undefined;
  return html`<main class="narrow">
    ${needs !== "token" && html`<${AccountForm} instead=${instead} />`}
    ${needs === "either" && html`<details><summary>Sign in with a token instead</summary><${TokenForm} ...${shape} /></details>`}
    ${needs === "token" && html`<${TokenForm} ...${shape} />`}
  </main>`;
}

/** Whether who is here is whom the page is for; of a page for tokens the gateway alone judges. */
function welcome({ needs, kinds = ["user"] }: Shape): boolean {
  return token.value !== "" && (needs !== "person" || kinds.includes(me.value?.kind ?? ""));
}

function Page(shape: Shape) {
  const here = welcome(shape);
  const current = here ? (shape.views.find((one) => one.id === hash.value.split("/")[0]) ?? shape.views[0]) : undefined;
  const title = [current?.name ?? "Sign in", shape.title, "Topic Gateway"].join(" · ");
  useEffect(() => void (document.title = title), [title]);
  if (!here) return html`<${Top} title=${shape.title} views=${[]} /><${SignIn} ...${shape} />`;
  return html`<a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Top} title=${shape.title} views=${shape.views} current=${current} />
    ${crowded.value &&
    html`<p class="notice bad" role="alert">${crowded} <button class="quiet" type="button" onClick=${again}>Connect again</button></p>`}
    <main id="content" tabindex="-1">${current && html`<${current.show} key=${`${person.value} ${current.id}`} />`}</main>
    <${Announcer} />`;
}

function toContent(event: Event) {
  event.preventDefault(); // the hash names the view
  document.getElementById("content")?.focus();
}

/** Show a page whose views are chosen by the address's hash. */
export function show(shape: Shape): void {
  render(html`<${Page} ...${shape} />`, document.getElementById("page")!);
}

export { Top };
