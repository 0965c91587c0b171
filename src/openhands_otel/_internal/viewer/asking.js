// Asks a question anew when its answer may be another, but never more often than the viewer answers easily.

import { Pace } from "./stream.js";

export class Asking {
  // ask(): the promise of an answer, null where nothing is to be asked; show(answer, first): whether it is the first
  // that came since the question is another one; failed(error): none came
  constructor({ ask, show, failed }) {
    Object.assign(this, { ask, show, failed });
    this.round = 0;
    this.shown = null;
    this.pace = new Pace();
    this.asking = false;
    this.pausing = false;
    this.wanted = false;
  }

  // The question is another one: what is under way for the one before no longer counts.
  change() {
    this.stop();
    this.#begin();
  }

  // The answer may be another one.
  refresh() {
    if (this.asking || this.pausing || document.hidden) this.wanted = true;
    else this.#begin();
  }

  // Nobody looks at the answers any more.
  stop() {
    this.round += 1;
    this.asking = false;
    this.wanted = false;
  }

  async #begin() {
    const answering = this.ask();
    if (answering === null) return;
    const { round } = this;
    const began = performance.now();
    this.asking = true;
    this.wanted = false;
    try {
      const answer = await answering;
      if (round === this.round) this.show(answer, this.#isFirst());
    } catch (error) {
      if (round === this.round) {
        // What comes after this is not the first any more: rows that were read meanwhile hold still.
        this.#isFirst();
        this.failed(error);
      }
    }
    if (round !== this.round) return;
    this.asking = false;
    this.pausing = true;
    setTimeout(() => {
      this.pausing = false;
      if (this.wanted) this.refresh();
    }, this.pace.after(performance.now() - began));
  }

  #isFirst() {
    const first = this.shown !== this.round;
    this.shown = this.round;
    return first;
  }
}
