// The table of conversations: only the rows in sight are in the document, however many there are.

import { go, viewOf } from "./address.js";
import { element, money, setText, spent } from "./format.js";
import { roomFor, shownColumns } from "./columns.js";
import { cellClass, Row } from "./row.js";

const BEYOND = 10; // rows above and below what is in sight
const MOST_ROWS = 96;
const NEAR_END = 30;
const LEAST = 1e-9;
const narrow = matchMedia("(max-width: 760px)");

export class Table {
  // toggle: see Row; more: called when the end comes into sight
  constructor(table, toggle, more) {
    this.toggle = toggle;
    this.more = more;
    this.rows = [];
    this.columns = [];
    this.table = table;
    this.above = spacer();
    this.below = spacer();
    this.body = element("tbody", "", this.above, this.below);
    this.count = element("th", "c-name", "0 conversations");
    this.count.scope = "row";
    this.sum = element("td", "num c-cost");
    this.rest = element("td", "num c-cost");
    const restName = element("th", "c-name", "not in these rows: earlier, or of no conversation");
    restName.scope = "row";
    this.names = [this.count, restName];
    this.thead = element("thead");
    this.foot = element("tfoot");
    table.append(this.thead, this.body, this.foot);
    this.body.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("scroll", () => this.#soon(), { passive: true });
    addEventListener("resize", () => this.#soon());
  }

  // rows: see List; what is out of sight is not looked at
  show(rows, known, now) {
    Object.assign(this, { rows, known, now });
    this.table.setAttribute("aria-rowcount", String(rows.length + 1));
    this.#columns(shownColumns());
    const { sort } = viewOf();
    for (const cell of this.heads) {
      const name = cell.dataset.sort;
      cell.setAttribute("aria-sort", sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none");
    }
    this.#draw();
  }

  // Makes head and foot where the columns are others; rows are made as they come into sight.
  #columns(columns) {
    const key = columns.map(({ name }) => name).join("\n");
    if (this.shownNames === key) return;
    this.shownNames = key;
    this.columns = columns;
    this.heads = columns.map((column) => head(column));
    this.thead.replaceChildren(element("tr", "", ...this.heads));
    const rows = [this.sum, this.rest].map((sum, index) => footRow(this.names[index], sum, columns));
    this.restRow = rows[1];
    this.foot.replaceChildren(...rows);
    for (const spacer of [this.above, this.below]) spacer.firstChild.colSpan = columns.length;
    // Wider than usual: then it is scrolled sideways where it has no room.
    const room = roomFor(columns);
    this.table.style.minWidth = room ? `${room}px` : "";
    this.table.parentElement.classList.toggle("chosen", room > 0);
  }

  // Some conversations changed, and no row came or went.
  refresh(changed, now, isLeft) {
    this.now = now;
    for (const root of this.#inDocument()) {
      const id = root.dataset.conversation;
      if (!changed.has(id)) continue;
      const { row } = this.known.get(id);
      row.shown.left = isLeft(id);
      this.#rowOf(row.shown);
    }
  }

  showSums({ count, sum, unpriced, rest }) {
    setText(this.count, count);
    setText(this.sum, this.rows.length || sum ? spent(sum, unpriced) : "");
    this.sum.dataset.value = String(sum);
    if (this.restRow) this.restRow.hidden = rest === null || Math.abs(rest) < LEAST;
    setText(this.rest, rest === null ? "" : money(rest));
    this.rest.dataset.value = String(rest);
  }

  tick(now) {
    this.now = now;
    for (const row of this.#inDocument()) {
      const entry = this.known.get(row.dataset.conversation);
      entry?.row?.tick(entry, now);
    }
  }

  focusFirst() {
    scrollTo({ top: this.table.getBoundingClientRect().top + scrollY - 60 });
    this.#focus(0);
  }

  #inDocument() {
    return [...this.body.children].slice(1, -1);
  }

  #soon() {
    if (this.drawing || !this.known) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.#draw();
    });
  }

  #draw() {
    if (!this.known || this.table.closest("[hidden]")) return;
    const height = narrow.matches ? 64 : 48;
    const top = -this.body.getBoundingClientRect().top;
    // As long as there are few, all of them are there, for the browser's own search too.
    const inSight = this.rows.length <= MOST_ROWS ? this.rows.length : Math.ceil(innerHeight / height) + 2 * BEYOND;
    const first = Math.max(0, Math.min(Math.floor(top / height) - BEYOND, this.rows.length - inSight));
    const last = Math.min(this.rows.length, first + Math.min(MOST_ROWS, inSight));
    this.first = first;
    this.height = height;
    size(this.above, first * height);
    size(this.below, (this.rows.length - last) * height);
    const wanted = this.rows.slice(first, last).map((shown) => this.#rowOf(shown));
    // Others go first, so that none of those that stay is moved: that would take the focus away.
    const staying = new Set(wanted);
    for (const row of this.#inDocument()) if (!staying.has(row)) row.remove();
    let place = this.above.nextSibling;
    for (const row of wanted) {
      if (place === row) place = place.nextSibling;
      else this.body.insertBefore(row, place);
    }
    this.#inDocument().forEach((row, index) => row.setAttribute("aria-rowindex", String(first + index + 2)));
    if (last > this.rows.length - NEAR_END) this.more();
  }

  #rowOf(shown) {
    const entry = this.known.get(shown.id);
    if (entry.row?.columns !== this.columns) entry.row = new Row(shown.id, this.columns, this.toggle);
    if (entry.row.drawn !== entry.stats || entry.row.shown !== shown) entry.row.update(entry, shown, this.now);
    entry.row.drawn = entry.stats;
    entry.row.root.classList.toggle("left", shown.left);
    return entry.row.root;
  }

  #key(event) {
    const row = event.target.closest("tr.conversation");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = this.first + this.#inDocument().indexOf(row);
    const page = Math.max(1, Math.floor(innerHeight / this.height) - 3);
    const places = {
      ArrowDown: place + 1, j: place + 1, ArrowUp: place - 1, k: place - 1, Home: 0, End: this.rows.length - 1,
      PageDown: place + page, PageUp: place - page,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.#focus(Math.max(0, Math.min(this.rows.length - 1, places[event.key])));
  }

  // The row may not be in the document yet.
  #focus(place) {
    if (!this.rows[place]) return;
    const y = this.body.getBoundingClientRect().top + place * this.height;
    const margin = 2 * this.height;
    if (y < margin) scrollBy({ top: y - margin });
    else if (y + this.height > innerHeight - margin) scrollBy({ top: y + this.height - innerHeight + margin });
    this.#draw();
    this.known.get(this.rows[place].id).row.link.focus({ preventScroll: true });
  }
}

function head({ name, title, text }) {
  const button = element("button", "", title);
  button.type = "button";
  // First the way that is asked for most, then the other, then no order of one's own.
  const steps = text ? [name, `-${name}`, ""] : [`-${name}`, name, ""];
  button.addEventListener("click", () => go({ sort: steps[(steps.indexOf(viewOf().sort) + 1) % 3] }));
  const cell = element("th", cellClass(name, text), button);
  cell.scope = "col";
  cell.dataset.sort = name;
  return cell;
}

function spacer() {
  const row = element("tr", "spacer", element("td"));
  row.setAttribute("aria-hidden", "true");
  return row;
}

function size(row, pixels) {
  row.hidden = pixels === 0;
  row.firstChild.style.height = `${pixels}px`;
}

function footRow(name, sum, columns) {
  return element("tr", "", ...columns.map((column) =>
    column.name === "name" ? name : column.name === "cost" ? sum : element("td", cellClass(column.name, column.text))));
}
