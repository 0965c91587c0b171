// One conversation as a row of the table.

import { changed } from "./address.js";
import { element, setText } from "./format.js";
import { nowOf, toneOf } from "./state.js";

// The person and what it is for, where they were sent.
export const whoseOf = ({ labels }) => [labels.user, labels.project ?? labels.workspace].filter(Boolean).join(" · ");

export class Row {
  // columns: see columns.js; toggle: called with the id when sub-agents are to be shown or hidden
  constructor(id, columns, toggle) {
    Object.assign(this, { id, columns });
    this.link = element("a", "name");
    this.link.title = id;
    this.whose = element("span", "whose");
    this.fold = element("button", "fold");
    this.fold.type = "button";
    this.fold.addEventListener("click", () => toggle(id));
    this.state = element("span", "status", element("span", "dot"), (this.word = element("span", "word")));
    this.since = element("span", "since");
    this.below = element("span", "below");
    this.cells = new Map(columns.map((column) => [column, this.#cell(column)]));
    this.root = element("tr", "conversation", ...this.cells.values());
    this.root.dataset.conversation = id;
  }

  #cell({ name, show, text }) {
    if (name === "name") {
      const first = element("th", "c-name", element("span", "line", this.link, this.fold), element("span", "line", this.whose, this.below));
      first.scope = "row";
      return first;
    }
    return element("td", cellClass(name, text), ...(show ? [] : [this.state, this.since]));
  }

  // shown: { depth, folded: whether sub-agents' spend counts here, children: how many, flat: whether parents stand elsewhere }
  update(entry, shown, now) {
    const { stats } = entry;
    this.shown = shown;
    setText(this.link, stats.name ?? this.id);
    const address = changed({ conversation: this.id });
    if (this.link.getAttribute("href") !== address) this.link.href = address;
    setText(this.whose, [shown.flat && stats.parent_id ? "sub-agent" : "", whoseOf(stats) || (stats.agent ?? ""), this.id.slice(0, 8)].filter(Boolean).join(" · "));
    this.root.dataset.depth = String(Math.min(3, shown.depth));
    this.fold.hidden = shown.children === 0;
    setText(this.fold, `${shown.folded ? "+" : "\u2212"}${shown.children}`);
    this.fold.setAttribute("aria-expanded", String(!shown.folded));
    this.fold.setAttribute("aria-label", `${shown.children} sub-agent${shown.children === 1 ? "" : "s"}`);
    this.state.dataset.tone = toneOf(stats);
    this.state.title = stats.error_type ?? "";
    for (const [column, cell] of this.cells) column.show?.(cell, entry, now, costOf(stats, shown));
    if (entry.flash) this.#flash();
    entry.flash = false;
    this.tick(entry, now);
  }

  // What changes with the clock alone.
  tick(entry, now) {
    const { text, title, since } = nowOf(entry.stats, now);
    setText(this.word, text);
    this.word.title = title;
    setText(this.since, since);
    setText(this.below, `${text} ${since}`);
    for (const [column, cell] of this.cells) if (column.ticks) column.show(cell, entry, now);
  }

  #flash() {
    this.root.classList.add("changed");
    clearTimeout(this.flashing);
    this.flashing = setTimeout(() => this.root.classList.remove("changed"), 250);
  }
}

// Of a column's cells. A label's name may be anything.
export const cellClass = (name, text) => `c-${name.startsWith("label:") ? "label" : name}${text ? "" : " num"}`;

// What a row says it cost: with its sub-agents where they have no rows.
export const costOf = (stats, shown) => (shown.folded ? stats.tree_cost : stats.accumulated_cost);
