// What a conversation did and does, as a waterfall: only the rows in sight are in the document, however many there are.

import { count, element, setText } from "./format.js";
import { costOf, poll, seconds, SpanDetails, traceLink } from "./spans.js";
import { ask } from "./stream.js";

const ROW = 28; // pixels, as in spans.css
const SEEN = 16; // rows in sight
const BEYOND = 12;
const PAGE = 1_000;
const DEEPEST = 12; // further down nothing is indented further
const TICK_MS = 500;
const TICKS = 5;
const TINTS = { run: "tint-0", call: "tint-2", tool: "tint-1", other: "tint-7" };
let made = 0; // elements with an id
const STATES = { running: "running", missing: "no span of it here" };

// Shows it in a box until the returned function is called.
export function showTimeline(box, conversation) {
  const timeline = new Timeline(box, conversation);
  return () => timeline.stop();
}

class Timeline {
  constructor(box, conversation) {
    this.rows = [];
    this.shown = []; // places in rows of those that are not under a closed one
    this.closed = new Set();
    this.selected = null; // id of a row
    this.elements = new Map(); // by id
    this.offset = 0;
    this.zoom = null; // [from, to], unix seconds
    this.#make(box);
    this.base = `api/v1/conversations/${encodeURIComponent(conversation)}/timeline?limit=${PAGE}`;
    this.polling = poll(() => this.base, (first) => this.#take(first), (error) => {
      if (error) setText(this.note, error.status === 404 ? "No spans of it are kept here." : `The timeline cannot be shown now: ${error.message}`);
    });
    this.ticking = setInterval(() => { if (this.rows.some((row) => row.ended === null)) this.#draw(); }, TICK_MS);
  }

  stop() {
    this.polling.stop();
    clearInterval(this.ticking);
  }

  #make(box) {
    const zoom = (text, name, change) => {
      const button = element("button", "", text);
      button.type = "button";
      button.setAttribute("aria-label", name);
      button.addEventListener("click", change);
      return button;
    };
    this.link = element("span");
    this.axis = element("div", "axis");
    this.axis.setAttribute("aria-hidden", "true");
    this.inner = element("div", "inner");
    this.inner.setAttribute("role", "presentation");
    this.scroller = element("div", "waterfall", this.inner);
    this.scroller.tabIndex = 0;
    this.scroller.setAttribute("role", "treegrid");
    this.scroller.setAttribute("aria-label", "Timeline: arrow keys go through it, left and right close and open, plus and minus zoom, Enter shows a span");
    this.note = element("p", "note");
    this.note.setAttribute("role", "status");
    this.details = new SpanDetails();
    this.tools = element(
      "p", "buttons", zoom("+", "Zoom in", () => this.#zoomBy(0.5)), zoom("\u2212", "Zoom out", () => this.#zoomBy(2)),
      zoom("all", "Show all of the time", () => { this.zoom = null; this.#draw(); }), this.link,
    );
    box.replaceChildren(this.tools, this.axis, this.scroller, this.note, this.details.root);
    this.scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.#key(event));
    this.inner.addEventListener("click", (event) => {
      const row = event.target.closest("[role=row]");
      if (!row) return;
      const place = this.shown.findIndex((at) => this.rows[at].id === row.dataset.id);
      this.#select(place);
      if (event.target.closest(".twist")) this.#fold(this.rows[this.shown[place]]);
      else this.#open();
    });
  }

  async #take(first) {
    const rows = first.rows;
    while (rows.length < first.count) {
      const next = await (await ask(`${this.base}&offset=${rows.length}`)).json();
      if (!next.rows.length) break;
      rows.push(...next.rows);
    }
    this.rows = rows;
    this.offset = first.server_unix_s - Date.now() / 1000;
    this.begun = first.begun;
    const trace = rows.find((row) => row.trace_id)?.trace_id;
    this.link.replaceChildren(...(first.trace_url && trace ? [traceLink(first.trace_url.replace("{trace_id}", trace))] : []));
    this.tools.hidden = this.axis.hidden = this.scroller.hidden = rows.length === 0;
    const running = rows.filter((row) => row.ended === null).length;
    const said = [`${count(rows.length)} rows`, running ? `${running} running` : "", first.left_out ? `${count(first.left_out)} newer spans have no room here` : ""];
    setText(this.note, rows.length ? said.filter(Boolean).join(", ") : "No spans of it are kept here.");
    this.#arrange();
  }

  #arrange() {
    this.shown = [];
    for (let at = 0; at < this.rows.length; at += 1) {
      this.shown.push(at);
      if (this.closed.has(this.rows[at].id)) at += this.rows[at].below;
    }
    this.scroller.setAttribute("aria-rowcount", String(this.shown.length));
    this.inner.style.height = `${this.shown.length * ROW}px`;
    this.scroller.style.height = `${Math.min(this.shown.length, SEEN) * ROW + 2}px`;
    this.#draw();
  }

  get #window() {
    const now = Date.now() / 1000 + this.offset;
    const end = this.rows.reduce((latest, row) => Math.max(latest, row.ended ?? Math.max(now, row.begun)), this.begun ?? 0);
    const [from, to] = this.zoom ?? [this.begun ?? 0, end];
    return { from, to: Math.max(to, from + 0.001), now };
  }

  #draw() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.shown.length, first + SEEN + 2 * BEYOND);
    const view = this.#window;
    const wanted = new Map();
    for (let place = first; place < last; place += 1) {
      const row = this.rows[this.shown[place]];
      const drawn = this.elements.get(row.id) ?? rowElement(row);
      fill(drawn, row, place, view, this.closed.has(row.id), row.id === this.selected);
      wanted.set(row.id, drawn);
    }
    for (const [id, drawn] of this.elements) if (!wanted.has(id)) drawn.root.remove();
    for (const drawn of wanted.values()) if (!drawn.root.isConnected) this.inner.append(drawn.root);
    this.elements = wanted;
    const active = wanted.get(this.selected);
    if (active) this.scroller.setAttribute("aria-activedescendant", active.root.id);
    else this.scroller.removeAttribute("aria-activedescendant");
    const step = (view.to - view.from) / TICKS;
    this.axis.replaceChildren(...Array.from({ length: TICKS }, (_, at) => element("span", "", seconds(view.from - (this.begun ?? 0) + at * step))));
  }

  get #place() {
    return this.shown.findIndex((at) => this.rows[at].id === this.selected);
  }

  #select(place) {
    if (!this.shown.length) return;
    const at = Math.max(0, Math.min(this.shown.length - 1, place));
    this.selected = this.rows[this.shown[at]].id;
    const top = at * ROW;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = top + ROW - this.scroller.clientHeight;
    this.#draw();
  }

  #fold(row, close = !this.closed.has(row.id)) {
    if (!row.below) return;
    if (close) this.closed.add(row.id);
    else this.closed.delete(row.id);
    this.#arrange();
    this.#select(this.#place);
  }

  #open() {
    const row = this.rows[this.shown[this.#place]];
    if (row?.span_id) this.details.open(row.trace_id, row.span_id);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const place = this.#place;
    const row = this.rows[this.shown[place]];
    const steps = {
      ArrowDown: () => this.#select(place + 1), j: () => this.#select(place + 1),
      ArrowUp: () => this.#select(Math.max(0, place - 1)), k: () => this.#select(Math.max(0, place - 1)),
      Home: () => this.#select(0), End: () => this.#select(this.shown.length - 1),
      PageDown: () => this.#select(place + SEEN - 2), PageUp: () => this.#select(Math.max(0, place - SEEN + 2)),
      ArrowLeft: () => (event.shiftKey ? this.#pan(-0.2) : row && this.#left(row, place)),
      ArrowRight: () => (event.shiftKey ? this.#pan(0.2) : row && this.#right(row, place)),
      Enter: () => this.#open(), "+": () => this.#zoomBy(0.5), "-": () => this.#zoomBy(2), 0: () => { this.zoom = null; this.#draw(); },
    };
    if (!Object.hasOwn(steps, event.key)) return;
    event.preventDefault();
    steps[event.key]();
  }

  #left(row, place) {
    if (row.below && !this.closed.has(row.id)) return this.#fold(row, true);
    let above = place - 1;
    while (above >= 0 && this.rows[this.shown[above]].depth >= row.depth) above -= 1;
    if (above >= 0) this.#select(above);
  }

  #right(row, place) {
    if (this.closed.has(row.id)) this.#fold(row, false);
    else if (row.below) this.#select(place + 1);
  }

  // About what is selected, else about the middle.
  #zoomBy(factor) {
    const { from, to, now } = this.#window;
    const row = this.rows[this.shown[this.#place]];
    const middle = row ? (row.begun + (row.ended ?? now)) / 2 : (from + to) / 2;
    const length = Math.max(0.001, (to - from) * factor);
    this.zoom = null;
    const whole = this.#window;
    if (length < whole.to - whole.from) {
      const begin = Math.max(whole.from, Math.min(whole.to - length, middle - length / 2));
      this.zoom = [begin, begin + length];
    }
    this.#draw();
  }

  #pan(share) {
    if (!this.zoom) return;
    const [from, to] = this.zoom;
    this.zoom = [from + share * (to - from), to + share * (to - from)];
    this.#draw();
  }
}

function rowElement(row) {
  const twist = element("span", "twist");
  const label = element("span", "label-text");
  const bar = element("i");
  const took = element("span");
  const cost = element("span");
  const cells = [element("span", "label-cell", twist, label), element("span", "lane", bar), element("span", "num took", took), element("span", "num cost-cell", cost)];
  for (const cell of cells) cell.setAttribute("role", "gridcell");
  const root = element("div", "span-row", ...cells);
  root.setAttribute("role", "row");
  root.id = `timeline-row-${(made += 1)}`;
  root.dataset.id = row.id;
  return { root, twist, label, bar, took, cost };
}

function fill({ root, twist, label, bar, took, cost }, row, place, { from, to, now }, closed, selected) {
  const end = row.ended ?? Math.max(now, row.begun);
  root.style.top = `${place * ROW}px`;
  root.setAttribute("aria-rowindex", String(place + 1));
  root.setAttribute("aria-level", String(row.depth + 1));
  root.setAttribute("aria-selected", String(selected));
  if (row.below) root.setAttribute("aria-expanded", String(!closed));
  else root.removeAttribute("aria-expanded");
  root.dataset.state = row.state;
  if (row.error_type) root.dataset.tone = "bad";
  else delete root.dataset.tone;
  setText(twist, row.below ? (closed ? "\u25B8" : "\u25BE") : "");
  twist.style.marginLeft = `${Math.min(row.depth, DEEPEST) * 14}px`;
  const words = [row.name, row.role && row.role !== "agent" ? row.role : "", row.error_type ?? "", STATES[row.state] ?? "", closed ? `${count(row.below)} below` : ""];
  const text = words.filter(Boolean).join(" \u00b7 ");
  setText(label, text);
  label.title = row.service ? `${text} (${row.service})` : text;
  const scale = 100 / (to - from);
  const left = Math.max(0, Math.min(100, (row.begun - from) * scale));
  const right = Math.max(0, Math.min(100, (end - from) * scale));
  bar.className = `${TINTS[row.kind] ?? TINTS.other} ${row.state}`;
  bar.hidden = end < from || row.begun > to;
  bar.style.left = `${left}%`;
  bar.style.width = `${right - left}%`;
  setText(took, seconds(Math.max(0, end - row.begun)));
  setText(cost, costOf(row.cost));
}
