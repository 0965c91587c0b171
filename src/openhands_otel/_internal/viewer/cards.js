// The same conversations as cards, sub-agents inside those of their parents.

import { Card } from "./card.js";
import { element } from "./format.js";

const FIRST = 40;
const CARD_WIDTH = 390;
const GAP = 14;

export class Cards {
  constructor(box) {
    this.box = box;
    this.limit = FIRST;
    this.hasMore = false;
    addEventListener("resize", () => this.ids && this.#deal());
  }

  show(ids, children, known, now) {
    Object.assign(this, { ids, below: children, known, now });
    this.#deal();
  }

  // Some conversations changed, and none came or went.
  refresh(changed, now) {
    this.now = now;
    for (const id of changed) {
      const entry = this.known.get(id);
      if (entry?.card?.root?.isConnected) this.#update(entry);
    }
  }

  tick(now) {
    this.now = now;
    for (const [, { card }] of this.known?.entries ?? []) if (card?.root?.isConnected) card.tick(now);
  }

  // Whether there were more to be shown.
  more() {
    const some = this.hasMore;
    if (some) this.limit += FIRST;
    return some;
  }

  // As many columns as fit, in reading order, so that a tall card leaves no hole beside it.
  #deal() {
    if (this.box.hidden) return;
    const shown = this.ids.slice(0, this.limit);
    this.hasMore = shown.length < this.ids.length;
    const fitting = Math.max(1, Math.floor((this.box.clientWidth + GAP) / (CARD_WIDTH + GAP)));
    while (this.box.children.length < fitting) this.box.append(element("div", "column"));
    while (this.box.children.length > fitting) this.box.lastChild.remove();
    [...this.box.children].forEach((column, index) => this.#arrange(column, shown.filter((_, place) => place % fitting === index), false));
  }

  #update(entry) {
    if (entry.card.stats !== entry.stats) entry.card.update(entry.stats, entry.flash);
    entry.flash = false;
    entry.card.tick(this.now);
  }

  // Moves only what is out of place, so that focus, scroll and open rows stay.
  #arrange(box, ids, asChild) {
    let place = box.firstChild;
    for (const id of ids) {
      const entry = this.known.get(id);
      entry.card ??= new Card(id);
      const wanted = entry.card.element(asChild);
      this.#update(entry);
      if (place === wanted) place = place.nextSibling;
      else box.insertBefore(wanted, place);
      this.#arrange(entry.card.children, this.below.get(id) ?? [], true);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }
}
