// One conversation on the page: a card of its own, or a row in its parent's card that opens to the same body.

import { changed } from "./address.js";
import { LLM_ACTIVITY, REMARKS } from "./facts.js";
import { bar, count, duration, element, FORMATS, money, percent, setBar, setText, short, spent } from "./format.js";
import { stateWord, toneOf } from "./state.js";

export class Card {
  constructor(id) {
    this.id = id;
    this.stats = null;
    this.children = element("div", "children");
    this.#makeBody();
    this.#makeHead();
    this.root = null;
    this.asChild = null;
  }

  // The element to show: made when it is first asked for in that role.
  element(asChild) {
    if (this.root === null || this.asChild !== asChild) this.root = asChild ? this.#makeRow() : this.#makeCard();
    this.asChild = asChild;
    return this.root;
  }

  update(stats, flash) {
    this.stats = stats;
    const usage = stats.accumulated_token_usage;
    this.#updateHead();
    setText(this.cost, spent(stats.accumulated_cost, stats.unpriced_calls));
    this.tree.hidden = stats.descendants === 0;
    this.treeCost.textContent = money(stats.tree_cost);
    setText(this.treeNote, ` with ${stats.descendants} sub-${stats.descendants === 1 ? "agent" : "agents"}`);
    this.#updateTokens(usage);
    this.#updateContext(usage);
    this.#updateCosts();
    setText(this.extra, this.#remarks(false));
    setText(this.quiet, this.#remarks(true));
    setText(this.calls, `${count(stats.llm_calls)} ${stats.llm_calls === 1 ? "call" : "calls"}`);
    if (flash) this.#flash();
  }

  // What changes with the clock alone.
  tick(now) {
    const { activity, activity_since: since, closed, updated_unix_nano: updated } = this.stats;
    const busy = activity !== null;
    const idle = closed ? "closed" : "nothing right now";
    this.now.classList.toggle("busy", busy);
    this.now.hidden = closed;
    setText(this.what, busy ? (activity === LLM_ACTIVITY ? "waiting for the model" : activity) : idle);
    setText(this.since, busy && since !== null ? duration(now - since) : "");
    setText(this.updated, `changed ${duration(now - updated / 1e9)} ago`);
    setText(this.rowNow, busy ? activity : "");
  }

  #makeHead() {
    this.name = element("a", "title");
    this.name.title = this.id;
    this.idText = element("span", "id", this.id.slice(0, 8));
    this.idText.title = this.id;
    this.agent = element("span", "agent");
    this.statusText = element("span");
    this.statusBox = element("span", "status", element("span", "dot"), this.statusText);
    this.rowNow = element("span", "agent");
    this.rowCost = element("span", "cost-small");
  }

  #makeBody() {
    this.cost = element("span", "cost");
    this.treeCost = element("b");
    this.treeNote = element("span");
    this.tree = element("span", "tree", this.treeCost, this.treeNote);
    this.what = element("span", "what");
    this.since = element("span");
    this.now = element("div", "now", this.what, this.since);
    this.tokenText = element("b");
    this.calls = element("span");
    this.tokenBar = bar();
    this.facts = element("div", "facts");
    this.contextText = element("span");
    this.contextBar = bar();
    this.contextBar.setAttribute("role", "progressbar");
    this.contextBar.setAttribute("aria-label", "Context window used");
    this.context = element("div", "meter", element("div", "line", element("span", "", "context"), this.contextText), this.contextBar);
    this.costs = element("div", "costs");
    this.extra = element("p", "extra");
    this.quiet = element("p", "extra quiet");
    this.updated = element("span");
    this.service = element("span");
    this.body = element(
      "div", "body",
      element("div", "money", this.cost, this.tree),
      this.now,
      element("div", "meter", element("div", "line", element("span", "", this.tokenText, " tokens"), this.calls), this.tokenBar, this.facts),
      this.context, this.costs, this.extra, this.quiet,
      element("div", "foot", this.updated, this.service),
    );
  }

  #makeCard() {
    const head = element("div", "head", element("div", "who", this.idText, this.agent), this.statusBox);
    const card = element("article", "card", element("h3", "", this.name), head, this.body, this.children);
    card.setAttribute("aria-label", `Conversation ${this.id.slice(0, 8)}`);
    card.dataset.conversation = this.id;
    return card;
  }

  #makeRow() {
    const summary = element("summary", "", element("span", "who", this.idText, this.rowNow), this.statusBox, this.rowCost);
    const row = element("div", "child", element("details", "", summary, element("div", "own", this.name), this.body), this.children);
    row.dataset.conversation = this.id;
    return row;
  }

  #updateHead() {
    const { stats } = this;
    this.statusBox.dataset.tone = toneOf(stats);
    setText(this.statusText, stateWord(stats));
    setText(this.name, stats.name ?? this.id);
    const address = changed({ conversation: this.id });
    if (this.name.getAttribute("href") !== address) this.name.href = address;
    this.statusBox.title = stats.error_type ?? "";
    setText(this.agent, stats.agent ?? "");
    setText(this.rowCost, spent(stats.tree_cost, stats.unpriced_calls));
    const processes = stats.processes > 1 ? `, ${stats.processes} processes` : "";
    setText(this.service, `${stats.service ?? ""}${processes}`);
  }

  #updateTokens(usage) {
    const input = usage.prompt_tokens;
    const output = usage.completion_tokens;
    const whole = Math.max(1, input + output);
    // Cached is part of input and reasoning part of output: shown inside them, never added.
    const cached = Math.min(usage.cache_read_tokens, input);
    const reasoning = Math.min(usage.reasoning_tokens, output);
    setText(this.tokenText, short(input + output));
    setBar(this.tokenBar, [
      ["cached", cached / whole], ["input", (input - cached) / whole],
      ["reasoning", reasoning / whole], ["output", (output - reasoning) / whole],
    ]);
    const facts = [["input", `${short(input)} in`]];
    if (cached) facts.push(["cached", `${percent(cached, input)} from cache`]);
    facts.push(["output", `${short(output)} out`]);
    if (reasoning) facts.push(["reasoning", `${short(reasoning)} reasoning`]);
    if (usage.cache_write_tokens) facts.push(["", `${short(usage.cache_write_tokens)} written to cache`]);
    this.facts.replaceChildren(...facts.map(([key, text]) => element("span", key ? `key ${key}` : "", text)));
  }

  #updateContext(usage) {
    const { per_turn_token: used, context_window: limit } = usage;
    this.context.hidden = !limit;
    if (!limit) return;
    const share = used / limit;
    setText(this.contextText, `${short(used)} of ${short(limit)} (${percent(used, limit)})`);
    setBar(this.contextBar, [[`context${share > 0.9 ? " full" : share > 0.7 ? " much" : ""}`, share]]);
    this.contextBar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }

  #updateCosts() {
    const rows = this.stats.costs.map((part) => {
      const name = `${part.role} · ${part.model}`;
      return element("div", "", element("span", "name", name), element("span", "", money(part.accumulated_cost)));
    });
    // A model that nothing was spent on has been called all the same.
    const paid = new Set(this.stats.costs.map((part) => part.model));
    for (const part of this.stats.calls_by_model.filter(({ model }) => model !== "unknown" && !paid.has(model))) {
      const name = element("span", "name", part.provider ? `${part.model} · ${part.provider}` : part.model);
      rows.push(element("div", "", name, element("span", "", spent(0, part.unpriced_calls))));
    }
    this.costs.replaceChildren(...rows);
    this.costs.hidden = rows.length === 0;
  }

  // Those to worry about, or those that are only there to be looked up.
  #remarks(quietly) {
    const { stats } = this;
    const remarks = [];
    for (const { field, format, remark, quiet, nothing } of REMARKS) {
      if (quiet !== quietly) continue;
      const value = stats[field];
      const text = value === nothing || value === undefined ? "" : FORMATS[format](value, stats);
      if (text) remarks.push(remark.replace("{}", text).replace("{s}", value === 1 ? "" : "s"));
    }
    return remarks.join(" · ");
  }

  #flash() {
    if (this.root === null) return;
    this.root.classList.add("changed");
    clearTimeout(this.flashing);
    this.flashing = setTimeout(() => this.root.classList.remove("changed"), 250);
  }
}
