// What the views that are made of spans have in common: asking again until something changed, and one span as a whole.

import { element, money } from "./format.js";
import { ask, Pace } from "./stream.js";

const EVERY_MS = 1_000;

// Calls show(answer, response) with what path() is, and again whenever that is something else; fail(error) where it
// cannot be had, fail(null) once it can. `again` asks at once, `stop` is the end.
export function poll(path, show, fail) {
  let tag = null;
  let timer = null;
  let round = 0;
  const pace = new Pace();
  async function once(number) {
    const began = performance.now();
    try {
      if (!document.hidden) {
        const answer = await ask(path(), { headers: tag ? { "if-none-match": tag } : {} });
        const body = await answer.json();
        if (number !== round) return;
        await show(body);
        tag = answer.headers.get("etag");
        fail(null);
      }
    } catch (error) {
      if (number === round) fail(error.status === 304 ? null : error);
    }
    if (number === round) timer = setTimeout(() => once(number), Math.max(EVERY_MS, pace.after(performance.now() - began)));
  }
  function again() {
    clearTimeout(timer);
    tag = null;
    once(++round);
  }
  again();
  return { again, stop: () => { clearTimeout(timer); round += 1; } };
}

export const seconds = (value) => (value < 0.9995 ? `${Math.round(value * 1000)} ms` : value < 100 ? `${value.toFixed(2)} s` : `${Math.round(value)} s`);

// One span with all that is kept of it; what was said is text, whatever it says.
export class SpanDetails {
  constructor() {
    this.root = element("section", "span-details");
    this.root.setAttribute("aria-label", "One span");
    this.root.tabIndex = -1;
    this.root.hidden = true;
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  async open(trace, span) {
    let found;
    try {
      found = await (await ask(`api/v1/span?trace=${encodeURIComponent(trace)}&span=${encodeURIComponent(span)}`)).json();
    } catch (error) {
      found = { name: error.status === 404 ? "This span is not kept any more." : `It cannot be shown now: ${error.message}`, attributes: {}, events: [], resource: {} };
    }
    const close = element("button", "quiet-button", "Close");
    close.type = "button";
    close.addEventListener("click", () => this.close());
    const parts = [element("h4", "", found.name)];
    if (found.status_message) parts.push(element("p", "note", found.status_message));
    if (found.trace_url) parts.push(element("p", "", traceLink(found.trace_url)));
    parts.push(listOf({ ...found.attributes, ...found.resource }));
    for (const event of found.events) parts.push(element("h5", "", event.name), listOf(event.attributes));
    if (found.left_out) parts.push(element("p", "note", `${found.left_out} attributes, events or links more had no room.`));
    if (!this.root.contains(document.activeElement)) this.from = document.activeElement;
    this.root.replaceChildren(...parts, close);
    this.root.hidden = false;
    this.root.focus();
  }

  close() {
    this.root.hidden = true;
    this.from?.focus();
  }
}

export function traceLink(url) {
  const link = element("a", "", "the whole trace \u2197");
  // The address is the viewer's own setting, and begins with http.
  link.href = url;
  link.rel = "noreferrer";
  link.target = "_blank";
  return link;
}

function listOf(attributes) {
  return element("dl", "attributes", ...Object.entries(attributes).flatMap(([name, value]) => [
    element("dt", "", name), element("dd", "", typeof value === "string" ? value : JSON.stringify(value)),
  ]));
}

export const costOf = (amount) => (amount === null || amount === undefined ? "" : money(amount));
