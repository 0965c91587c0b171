// Money over time as stacked columns with axes: drawn here, since a library would be larger than the rest of the page.

import { element, money, setText } from "./format.js";

const HEIGHT = 180;
const TOP = 10;
const BOTTOM = 22;
const GAP = 8;
const LETTER = 6.6; // pixels, about
const svgElement = (name, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
};

export class Chart {
  // label: what is drawn, for those who cannot see it
  constructor(label) {
    this.svg = svgElement("svg", { class: "plot", tabindex: 0, role: "group", "aria-label": label });
    this.told = element("div", "told");
    this.told.setAttribute("role", "status");
    this.root = element("div", "chart", this.told);
    this.root.prepend(this.svg);
    this.columns = [];
    this.chosen = null;
    this.svg.addEventListener("pointermove", (event) => this.#choose(this.#columnAt(event)));
    this.svg.addEventListener("pointerdown", (event) => this.#choose(this.#columnAt(event)));
    this.svg.addEventListener("pointerleave", () => this.#choose(null));
    this.svg.addEventListener("blur", () => this.#choose(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.root);
  }

  // columns: [{ name, title, parts: [dollars by series] }]; series: [{ name, tint }]
  show(columns, series) {
    this.columns = columns.map((column) => ({ ...column, sum: column.parts.reduce((sum, part) => sum + part, 0) }));
    this.series = series;
    this.#draw();
  }

  #draw() {
    const width = this.root.clientWidth;
    if (!width || !this.series) return;
    const most = Math.max(0, ...this.columns.map(({ sum }) => sum));
    const ticks = ticksTo(most);
    const left = Math.max(...ticks.map((tick) => axisMoney(tick, ticks).length)) * LETTER + GAP + 2;
    const top = ticks.at(-1) || 1;
    const high = (dollars) => ((HEIGHT - TOP - BOTTOM) * dollars) / top;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("height", String(HEIGHT));
    this.left = left;
    this.step = (width - left) / Math.max(1, this.columns.length);
    const pieces = ticks.map((tick) => this.#tick(tick, ticks, HEIGHT - BOTTOM - high(tick), left, width));
    this.mark = svgElement("rect", { class: "mark", y: TOP, height: HEIGHT - TOP - BOTTOM, width: this.step, visibility: "hidden" });
    pieces.push(this.mark, ...this.columns.map((column, index) => this.#column(column, index, high)), ...this.#names());
    this.svg.replaceChildren(...pieces);
    if (this.chosen !== null) this.#choose(Math.min(this.chosen, this.columns.length - 1));
  }

  #tick(dollars, ticks, y, left, width) {
    const text = svgElement("text", { x: left - GAP, y: y + 4, "text-anchor": "end" }, axisMoney(dollars, ticks));
    return svgElement("g", { class: "tick" }, svgElement("line", { x1: left, x2: width, y1: y, y2: y }), text);
  }

  #column(column, index, high) {
    const gap = this.step > 6 ? Math.min(6, this.step * 0.2) : 0;
    const group = svgElement("g", { class: "column" });
    let y = HEIGHT - BOTTOM;
    column.parts.forEach((dollars, place) => {
      if (dollars <= 0) return;
      const height = Math.max(high(dollars), 0.75);
      y -= height;
      const shape = { x: this.left + index * this.step + gap / 2, y, width: Math.max(1, this.step - gap), height };
      group.append(svgElement("rect", { ...shape, class: `tint-${this.series[place].tint}` }));
    });
    return group;
  }

  #names() {
    const longest = Math.max(1, ...this.columns.map(({ name }) => name.length)) * LETTER + 14;
    const each = Math.max(1, Math.ceil(longest / this.step));
    return this.columns.flatMap(({ name }, index) => {
      const x = this.left + (index + 0.5) * this.step;
      const half = (name.length * LETTER) / 2;
      if (index % each || x + half > this.left + this.step * this.columns.length + 12) return [];
      return [svgElement("text", { class: "name", x: Math.max(x, half), y: HEIGHT - 5, "text-anchor": "middle" }, name)];
    });
  }

  #columnAt(event) {
    const index = Math.floor((event.clientX - this.svg.getBoundingClientRect().left - this.left) / this.step);
    return index >= 0 && index < this.columns.length ? index : null;
  }

  #key(event) {
    const last = this.columns.length - 1;
    const places = { ArrowLeft: Math.max(0, (this.chosen ?? last + 1) - 1), ArrowRight: Math.min(last, (this.chosen ?? -1) + 1), Home: 0, End: last };
    if (event.key === "Escape") return this.#choose(null);
    if (!(event.key in places) || last < 0) return;
    event.preventDefault();
    this.#choose(places[event.key]);
  }

  #choose(index) {
    this.chosen = index;
    const column = index === null ? null : this.columns[index];
    this.mark?.setAttribute("visibility", column ? "visible" : "hidden");
    this.told.classList.toggle("shown", Boolean(column));
    if (!column) return setText(this.told, "");
    this.mark.setAttribute("x", String(this.left + index * this.step));
    const rows = column.parts.map((dollars, place) => [this.series[place], dollars]).filter(([, dollars]) => dollars > 0);
    const lines = rows.length > 1 ? rows.reverse().map(([series, dollars]) => line(series.name, dollars, series.tint)) : [];
    this.told.replaceChildren(element("p", "when", column.title), ...lines, line(rows.length === 1 ? rows[0][0].name : "together", column.sum));
    // Beside the column and never on it; within the chart.
    const x = this.left + (index + 0.5) * this.step;
    const right = x > this.root.clientWidth / 2;
    const away = this.step / 2 + 8;
    this.told.style.left = right ? "auto" : `${x + away}px`;
    this.told.style.right = right ? `${this.root.clientWidth - x + away}px` : "auto";
  }
}

function line(name, dollars, tint) {
  const swatch = tint === undefined ? [] : [element("i", `swatch tint-${tint}`)];
  return element("p", "", element("span", "name", ...swatch, name), element("b", "", money(dollars)));
}

// 0 and some round steps up to the first that is not below.
function ticksTo(most) {
  if (!(most > 0)) return [0];
  const rough = most / 3;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((each) => each >= rough);
  const count = Math.ceil(most / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => index * step);
}

// As many digits for all as the finest needs, and no more.
function axisMoney(dollars, ticks) {
  const step = ticks[1] ?? 1;
  if (dollars === 0) return "$0";
  let digits = Math.max(0, -Math.floor(Math.log10(step)));
  if (Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return `$${dollars.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits, notation: dollars >= 1e5 ? "compact" : "standard" })}`;
}
