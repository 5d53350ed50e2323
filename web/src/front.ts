/** The front page: what runs here, and where to go. */
import { html } from "htm/preact";
import { render } from "preact";
import { signal } from "@preact/signals";
import { root } from "./frame/api.ts";
import { Top } from "./frame/layout.ts";
import { Badge } from "./frame/parts.ts";
import "./frame/style.css";

const ready = signal<{ ok: boolean; text: string } | undefined>(undefined);
fetch(new URL("readyz", root)).then(
  async (answer) => (ready.value = { ok: answer.ok, text: (await answer.text()).trim() }),
  () => (ready.value = { ok: false, text: "it does not answer" }),
);

const PAGES = [{ path: "console/", name: "Console", about: "For operators: services, dead letters, a live tail." }];
const DOCUMENTS = [
  { path: "openapi.json", name: "OpenAPI", about: "The HTTP routes" },
  { path: "asyncapi.json", name: "AsyncAPI", about: "The topics" },
  { path: "metrics", name: "Metrics", about: "For Prometheus" },
];

function Front() {
  const state = ready.value;
  return html`<${Top} title="Events between devices, people and services" views=${[]} />
    <main class="narrow">
      <p class="lead">
        MQTT in, a log that remembers, WebSocket and SSE out.
        ${state && html` <${Badge} tone=${state.ok ? "good" : "bad"}>${state.ok ? "ready" : state.text}<//>`}
      </p>
      <ul class="pages">
        ${PAGES.map(
          (one) => html`<li><a class="card" href=${new URL(one.path, root).href}><strong>${one.name}</strong> <span>${one.about}</span></a></li>`,
        )}
      </ul>
      <h2>For programs</h2>
      <ul class="documents">
        ${DOCUMENTS.map((one) => html`<li><a href=${new URL(one.path, root).href}>${one.name}</a> <span>${one.about}</span></li>`)}
      </ul>
    </main>`;
}

render(html`<${Front} />`, document.getElementById("page")!);
