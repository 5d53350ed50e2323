/** The frame of every page: who is there, the connection, the views, and a form for those who bring no token yet. */
import { html } from "htm/preact";
import { computed, signal } from "@preact/signals";
import { type ComponentChildren, render, type VNode } from "preact";
import { Announcer } from "./announce.ts";
import { root } from "./api.ts";
import { link } from "./live.ts";
import { Badge } from "./parts.ts";
import { ended, signIn, signOut, token, who } from "./session.ts";
import "./style.css";

export interface View {
  id: string;
  name: string;
  show: () => VNode;
}

const hash = signal(location.hash.slice(1));
addEventListener("hashchange", () => (hash.value = location.hash.slice(1)));

const me = computed(() => who(token.value));
const LINK = { live: ["good", "live"], connecting: ["warn", "connecting"], off: ["plain", "not connected"] } as const;

interface Shape {
  title: string;
  views: View[];
  /** Whom this page is for: of which role a token has to be, and how one gets it. */
  role: string;
  hint: ComponentChildren;
}

function Top({ title, views, current }: { title: string; views: View[]; current?: View | undefined }) {
  const [tone, word] = LINK[link.value];
  return html`<header class="top">
    <a class="home" href=${root.href}><img src=${new URL("favicon.svg", root).href} alt="" width="28" height="28" /> Topic Gateway</a>
    <h1>${title}</h1>
    ${me.value &&
    html`<div class="me">
      ${link.value !== "off" && html`<${Badge} tone=${tone}>${word}<//>`}
      <span class="who">${me.value.kind} <strong>${me.value.name}</strong></span>
      <button class="quiet" type="button" onClick=${() => signOut()}>Sign out</button>
    </div>`}
    ${views.length > 1 &&
    html`<nav aria-label="Views">
      ${views.map(
        (one) => html`<a href=${`#${one.id}`} aria-current=${one === current ? "page" : null}>${one.name}</a>`,
      )}
    </nav>`}
  </header>`;
}

function SignIn({ role, hint }: Shape) {
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.target as HTMLFormElement).get("token");
    if (typeof given === "string" && given.trim()) signIn(given);
  };
  return html`<main class="narrow">
    <form class="card" onSubmit=${send}>
      <h2>Sign in with a token</h2>
      ${ended.value && html`<p class="notice bad" role="alert">${ended}</p>`}
      <label for="token">Token of an account with the role <strong>${role}</strong></label>
      <input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required />
      <p class="hint">${hint} It stays in this tab, and is forgotten when you close it.</p>
      <button type="submit">Sign in</button>
    </form>
  </main>`;
}

function Page(shape: Shape) {
  if (!token.value) return html`<${Top} title=${shape.title} views=${[]} /><${SignIn} ...${shape} />`;
  const current = shape.views.find((one) => one.id === hash.value) ?? shape.views[0];
  return html`<a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Top} title=${shape.title} views=${shape.views} current=${current} />
    <main id="content" tabindex="-1">${current && html`<${current.show} key=${current.id} />`}</main>
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
