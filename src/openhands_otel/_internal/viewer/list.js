// The conversations: what needs a person as counted chips, a search through all of the past, and rows that hold still.
//
// Order is made when it is asked for: by opening the page, sorting, filtering, or taking in what is new.

import { conditionParts, go, meeting, viewOf } from "./address.js";
import { Cards } from "./cards.js";
import { lifeOf, needOf } from "./conversations.js";
import { NEEDS, OUTCOMES, TITLES } from "./facts.js";
import { count, element, setText } from "./format.js";
import { columnNamed } from "./columns.js";
import { costOf } from "./row.js";
import { ask } from "./stream.js";
import { Table } from "./table.js";

const PAGE = 100;
const TALLY_EVERY_MS = 250;
const LIVES = ["running", "idle", "ended"];
const RANKS = [...Object.keys(NEEDS), ...LIVES];
const at = (id) => document.getElementById(id);

export class List {
  // known: Conversations; now: the viewer's clock, unix seconds
  constructor(known, now) {
    this.known = known;
    this.now = now;
    this.since = 0; // begin of the period: what went wrong before is old
    this.live = [];
    this.pastIds = [];
    this.pastLeft = false;
    this.asked = 0;
    this.held = new Set();
    this.unfolded = new Set();
    this.rows = [];
    this.budgets = [];
    this.table = new Table(at("rows"), (id) => this.#toggle(id), () => this.#more());
    this.cards = new Cards(at("cards"));
    this.#makeChips();
    at("fresh").addEventListener("click", () => {
      this.order();
      this.table.focusFirst();
    });
    at("more").addEventListener("click", () => this.#more(true));
  }

  // What is wanted, in the order in which it is wanted: asked for by the reader.
  order() {
    const view = viewOf();
    this.view = view;
    this.flat = Boolean(view.where.length || view.search || view.show || view.outcome || view.sort);
    const wanted = this.#wanted(view);
    const { roots, children } = this.known.families();
    const ids = this.flat && view.as === "table" ? [...this.known.live()].map(([id]) => id) : roots;
    const fits = (id) => wanted(this.known.get(id)) || (view.as === "cards" && (children.get(id) ?? []).some(fits));
    const compare = this.#comparison(view, children);
    this.wanted = fits;
    this.live = ids.filter(fits).sort(compare);
    this.compare = compare;
    this.pastIds = [];
    this.#hold();
    this.#arrange();
    this.#askPast(true);
  }

  // Some conversations changed, or the list of them did.
  update() {
    if (!this.view) return;
    if (!this.rows.length && !this.pastIds.length) return this.order();
    if (this.known.moved) return this.#arrange();
    const { changed } = this.known;
    if (this.view.as === "cards") this.cards.refresh(changed, this.now());
    else this.table.refresh(changed, this.now(), this.#isLeft);
    changed.clear();
    this.#showSums();
    this.#tallySoon();
  }

  #isLeft = (id) => this.flat && !this.known.get(id).past && !this.wanted(id);

  // It comes back into sight.
  showAgain() {
    this.#arrange();
  }

  // Where it has a row or card that is in the document.
  focus(id) {
    const entry = this.known.get(id);
    (this.view?.as === "cards" ? entry?.card?.name : entry?.row?.link)?.focus({ preventScroll: true });
  }

  tick() {
    const time = this.now();
    if (this.view?.as === "cards") this.cards.tick(time);
    else this.table.tick(time);
    this.#tallySoon();
  }

  #hold() {
    this.held = new Set(this.live);
    for (const id of this.pastIds) this.held.add(id);
  }

  // Rows of what is held in order, and what is under it.
  #arrange() {
    this.known.moved = false;
    this.known.changed.clear();
    const { children } = this.known.families();
    const ids = this.#merged();
    const rows = [];
    const put = (id, depth) => {
      const entry = this.known.get(id);
      if (!entry) return;
      const below = this.flat || entry.past ? [] : children.get(id) ?? [];
      const folded = below.length > 0 && !this.unfolded.has(id);
      rows.push({ id, depth, folded, children: below.length, flat: this.flat || entry.past, left: this.#isLeft(id) });
      if (!folded) for (const child of below) put(child, depth + 1);
    };
    for (const id of ids) put(id, 0);
    this.rows = rows;
    const isCards = this.view.as === "cards";
    at("table-box").hidden = isCards;
    at("cards").hidden = !isCards;
    if (isCards) this.cards.show(ids, children, this.known, this.now());
    else this.table.show(rows, this.known, this.now());
    this.#tallySoon();
  }

  // Those in memory and those of the past in one order; of the past only as much is known as was asked for.
  #merged() {
    const keyed = columnNamed(this.view.sort.replace(/^-/, ""))?.key;
    if (!keyed) return [...this.live, ...this.pastIds];
    const merged = [];
    let place = 0;
    for (const id of this.pastIds) {
      while (place < this.live.length && this.compare(this.live[place], id) <= 0) merged.push(this.live[place++]);
      merged.push(id);
    }
    return this.pastLeft && this.pastIds.length ? merged : [...merged, ...this.live.slice(place)];
  }

  #wanted(view) {
    const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
    const meets = meeting(view.where);
    return (entry) => {
      const { stats } = entry;
      if (view.show in NEEDS ? needOf(stats, this.since) !== view.show : view.show && lifeOf(stats) !== view.show) return false;
      if (view.outcome && stats.outcome !== view.outcome) return false;
      return meets((name) => entry.valuesOf(name)) && words.every((word) => entry.searchText.includes(word));
    };
  }

  #comparison(view, children) {
    const byAge = (a, b) => this.known.get(b).stats.started_unix_nano - this.known.get(a).stats.started_unix_nano || (a < b ? -1 : 1);
    const column = columnNamed(view.sort.replace(/^-/, ""));
    if (column) {
      const sign = view.sort.startsWith("-") ? -1 : 1;
      const time = this.now();
      const value = (id) => column.of(this.known.get(id), time);
      return (a, b) => {
        const [one, other] = [value(a), value(b)];
        return sign * (column.text ? one.localeCompare(other) : one - other) || byAge(a, b);
      };
    }
    const ranks = new Map();
    const rank = (id) => {
      if (!ranks.has(id)) {
        const { stats } = this.known.get(id);
        ranks.set(id, RANKS.indexOf(needOf(stats, this.since) || lifeOf(stats)));
        ranks.set(id, Math.min(ranks.get(id), ...(children.get(id) ?? []).map(rank)));
      }
      return ranks.get(id);
    };
    return (a, b) => rank(a) - rank(b) || byAge(a, b);
  }

  // A page of those that left the viewer's memory.
  async #askPast(fresh) {
    const { view } = this;
    const asked = (this.asked += 1);
    if (fresh) this.pastLeft = false;
    // What lives is in memory.
    if (!["", "ended"].includes(view.show)) return this.#tallySoon();
    const key = columnNamed(view.sort.replace(/^-/, ""))?.key;
    const query = new URLSearchParams({ past: "yes", limit: String(PAGE), offset: String(this.pastIds.length) });
    if (view.search) query.set("search", view.search);
    if (view.outcome) query.set("outcome", view.outcome);
    for (const each of view.where) query.append("where", each);
    query.set("sort", key ? `${view.sort.startsWith("-") ? "-" : ""}${key}` : "-started_unix_nano");
    let answer, found;
    try {
      answer = await ask(`api/v1/conversations?${query}`);
      found = await answer.json();
    } catch {
      return; // the connection's state is said where it is looked after
    }
    if (asked !== this.asked) return;
    for (const stats of found) {
      this.known.put(stats, this.now(), true);
      if (!this.held.has(stats.conversation_id)) this.pastIds.push(stats.conversation_id);
    }
    this.past = Number(answer.headers.get("x-total-count"));
    this.pastLeft = found.length === PAGE && this.pastIds.length < this.past;
    this.#hold();
    this.#arrange();
  }

  #more(forced = false) {
    if (this.view.as === "cards" && forced && this.cards.more()) return this.#arrange();
    if (this.pastLeft) {
      this.pastLeft = false;
      this.#askPast(false);
    }
  }

  #toggle(id) {
    if (!this.unfolded.delete(id)) this.unfolded.add(id);
    this.#arrange();
  }

  #makeChips() {
    const chip = (name) => {
      const button = element("button", "chip", element("span", "", name), element("b", "", "0"));
      button.type = "button";
      button.dataset.show = name;
      button.hidden = name in NEEDS; // until it is known that there are any
      button.dataset.tone = NEEDS[name] ?? (name === "running" ? "run" : "rest");
      button.addEventListener("click", () => go({ show: viewOf().show === name ? "" : name }));
      return button;
    };
    this.chips = [...Object.keys(NEEDS), ...LIVES].map(chip);
    at("needs").append(...this.chips.slice(0, -LIVES.length));
    at("lives").append(...this.chips.slice(-LIVES.length));
  }

  // Chips of budgets, which stand behind those of conversations; the one that has the focus keeps it.
  limited(chips) {
    const focused = document.activeElement?.dataset.budget;
    for (const chip of this.budgets) chip.remove();
    this.budgets = chips;
    at("needs").append(...chips);
    if (focused !== undefined) chips.find((chip) => chip.dataset.budget === focused)?.focus();
    this.#tallySoon();
  }

  #tallySoon() {
    if (this.tallying || !this.view) return;
    this.tallying = setTimeout(() => {
      this.tallying = null;
      this.#tally();
    }, TALLY_EVERY_MS);
  }

  #tally() {
    const { view } = this;
    const tally = {};
    let fresh = 0;
    const { roots } = this.known.families();
    const isRoot = this.flat && view.as === "table" ? null : new Set(roots);
    for (const [id, entry] of this.known.live()) {
      const life = lifeOf(entry.stats);
      tally[life] = (tally[life] ?? 0) + 1;
      const need = needOf(entry.stats, this.since);
      if (need) tally[need] = (tally[need] ?? 0) + 1;
      if (!this.held.has(id) && (isRoot === null || isRoot.has(id)) && this.wanted(id)) fresh += 1;
    }
    tally.ended = (tally.ended ?? 0) + (this.unfilteredPast() ?? 0);
    let calm = this.budgets.length === 0;
    for (const button of this.chips) {
      const name = button.dataset.show;
      const number = tally[name] ?? 0;
      setText(button.lastChild, count(number));
      const pressed = view.show === name;
      button.setAttribute("aria-pressed", String(pressed));
      button.hidden = name in NEEDS && number === 0 && !pressed;
      if (name in NEEDS && number) calm = false;
    }
    at("calm").hidden = !calm;
    at("fresh").hidden = fresh === 0;
    setText(at("fresh"), `${count(fresh)} new: show`);
    this.#showSums();
  }

  // Of the past, where all of it was asked for.
  unfilteredPast() {
    if (!this.view.search && !this.view.outcome && !this.view.where.length && this.past !== undefined) this.allPast = this.past;
    return this.allPast;
  }

  #showSums() {
    const shown = this.rows.filter(({ left }) => !left);
    let sum = 0;
    let unpriced = 0;
    for (const row of shown) {
      const { stats } = this.known.get(row.id);
      sum += costOf(stats, row);
      unpriced += stats.unpriced_calls;
    }
    const more = this.pastLeft ? `, of ${count(this.past + this.live.length)}` : "";
    this.table.showSums({ count: `${count(shown.length)} conversation${shown.length === 1 ? "" : "s"}${more}`, sum, unpriced, rest: this.flat ? null : (this.ever ?? 0) - sum });
    const nothing = this.rows.length === 0;
    at("empty").hidden = !nothing;
    at("table-box").classList.toggle("nothing", nothing);
    const filtered = nothing && this.flat;
    at("empty-start").hidden = filtered;
    at("empty-filter").hidden = !filtered;
    at("more").hidden = !(this.view.as === "cards" ? this.cards.hasMore || this.pastLeft : false);
  }
}

// The filters that hold, each to be taken away.
export function showFilters(view) {
  const chips = view.where.map((each) => {
    const [name, value] = conditionParts(each);
    return filter(`${TITLES[name] ?? name} = ${value}`, { where: view.where.filter((other) => other !== each) });
  });
  if (view.outcome) chips.push(filter(`ended: ${OUTCOMES[view.outcome] ?? view.outcome}`, { outcome: "" }));
  at("filters").replaceChildren(...chips);
  at("filters").hidden = chips.length === 0;
}

function filter(text, without) {
  const cross = element("span", "cross", "\u00d7");
  cross.setAttribute("aria-hidden", "true");
  const button = element("button", "filter", text, cross);
  button.type = "button";
  button.setAttribute("aria-label", `${text}: remove this filter`);
  button.addEventListener("click", () => go(without));
  return button;
}

