/** The front page: what runs here, a minute that shows it, and where to go on. */
import { html } from "htm/preact";
import { render } from "preact";
import { Announcer } from "../frame/announce.ts";
import { Top } from "../frame/layout.ts";
import { Badge } from "../frame/parts.ts";
import { root } from "../frame/root.ts";
import { ended, me, person } from "../frame/session.ts";
import { Minute } from "./minute.ts";
import { useOffered } from "./offered.ts";
import "../frame/style.css";
import "./style.css";

const DOCUMENTS = [
  { path: "openapi.json", name: "OpenAPI", about: "The HTTP routes", guarded: true },
  { path: "asyncapi.json", name: "AsyncAPI", about: "The topics", guarded: true },
  { path: "metrics", name: "Metrics", about: "For Prometheus", guarded: false },
];

/** Who is here is no operator: what that is good for, and how to come by it. */
function Token() {
  const here = me.value ? `You are here as ${me.value.kind} ${me.value.name}` : "You are here without a token";
  return html`<div class="notice ${ended.value ? "bad" : "warn"}">
    <p>${ended.value && html`<strong role="alert">${ended.value}</strong> `}
      ${here}. An operator's token is for watching devices, stopping a service and replaying what failed: <code>make run</code> or
      <code>gateway up</code> prints a link that brings it here, in its terminal. It is in <code>.gateway/operator.token</code> too:${" "}
      <a href=${new URL("console/", root).href}>sign in with it</a>, and come back in this tab.</p>
  </div>`;
}

function Front() {
  const offered = useOffered().value.value;
  const parts = offered?.parts;
  return html`<p class="lead">
      MQTT in, a log that remembers, WebSocket and SSE out.
      ${offered && html` <${Badge} tone=${offered.ready ? "good" : "bad"}>${offered.why}<//>`}
    </p>
    ${parts && !parts.has("services") && html`<${Token} />`}
    ${parts && html`<${Minute} parts=${parts} />`}
    <h2>For operators</h2>
    <ul class="pages">
      <li><a class="card" href=${new URL("console/", root).href}><strong>Console</strong>
        <span>Services, dead letters, a live tail.</span></a></li>
    </ul>
    <h2>For programs</h2>
    <ul class="documents">
      ${DOCUMENTS.map(({ path, name, about, guarded }) =>
        guarded && parts && !offered.open
          ? html`<li><span>${name}</span> <span>${about}: <code>/${path}</code>, asked with a token</span></li>`
          : html`<li><a href=${new URL(path, root).href}>${name}</a> <span>${about}</span></li>`,
      )}
    </ul>`;
}

// Another person may see other things: all of it is asked anew.
const Page = () => html`<${Top} title="Events between devices, people and services" views=${[]} />
  <main class="narrow"><${Front} key=${person.value} /></main>
  <${Announcer} />`;

render(html`<${Page} />`, document.getElementById("page")!);
