// One conversation as a row of the table.

import { changed } from "./address.js";
import { lifeOf, NEEDS, needOf } from "./conversations.js";
import { LLM_ACTIVITY, OUTCOMES, OUTCOME_TONES, STATES, TONES } from "./facts.js";
import { brief, count, element, money, percent, setText, short, spent } from "./format.js";

// key: what it is sorted by, of its facts; from: what it takes of them, larger first unless it is text
export const COLUMNS = [
  { name: "name", title: "conversation", text: true, of: ({ stats }) => stats.name ?? stats.conversation_id, key: "name" },
  { name: "state", title: "now", text: true, of: ({ stats }) => stateWord(stats), key: "status" },
  { name: "model", title: "model", text: true, of: ({ stats }) => stats.model_name, key: "model_name" },
  { name: "cost", title: "$", of: ({ stats }) => stats.accumulated_cost, key: "accumulated_cost" },
  { name: "burn", title: "$/h", of: (entry, now) => entry.burn(now) ?? -1 },
  { name: "tokens", title: "tokens", of: ({ stats }) => tokensOf(stats) },
  { name: "context", title: "context", of: ({ stats }) => contextOf(stats) ?? -1 },
  { name: "calls", title: "calls", of: ({ stats }) => stats.llm_calls, key: "llm_calls" },
  { name: "age", title: "age", of: ({ stats }) => stats.started_unix_nano, key: "started_unix_nano" },
];

const tokensOf = ({ accumulated_token_usage: usage }) => usage.prompt_tokens + usage.completion_tokens;
const contextOf = ({ accumulated_token_usage: usage }) => (usage.context_window ? usage.per_turn_token / usage.context_window : null);

export function statusOf({ closed, gone, ended, stale, status }) {
  return closed ? "closed" : gone ? "gone" : ended ? "ended" : stale ? "silent" : status ?? "open";
}

// How its last run ended, where its status does not say that already.
export function resultOf(stats) {
  const { outcome } = stats;
  const status = statusOf(stats);
  const text = outcome === null || outcome === undefined || outcome === status ? "" : OUTCOMES[outcome] ?? outcome;
  return STATES[status] === text ? "" : text;
}

export function toneOf(stats) {
  return (resultOf(stats) && OUTCOME_TONES[stats.outcome]) || (TONES[statusOf(stats)] ?? "rest");
}

export function stateWord(stats) {
  const status = statusOf(stats);
  const result = resultOf(stats);
  return `${STATES[status] ?? status}${result && `, ${result}`}`;
}

// The person and what it is for, where they were sent.
export const whoseOf = ({ labels }) => [labels.user, labels.project ?? labels.workspace].filter(Boolean).join(" · ");

export class Row {
  // toggle: called with the id when sub-agents are to be shown or hidden
  constructor(id, toggle) {
    this.id = id;
    this.link = element("a", "name");
    this.link.title = id;
    this.whose = element("span", "whose");
    this.fold = element("button", "fold");
    this.fold.type = "button";
    this.fold.addEventListener("click", () => toggle(id));
    this.state = element("span", "status", element("span", "dot"), (this.word = element("span", "word")));
    this.since = element("span", "since");
    this.below = element("span", "below");
    const first = element("th", "c-name", element("span", "line", this.link, this.fold), element("span", "line", this.whose, this.below));
    first.scope = "row";
    this.cells = Object.fromEntries(COLUMNS.slice(2).map(({ name, text }) => [name, element("td", `c-${name}${text ? "" : " num"}`)]));
    this.root = element("tr", "conversation", first, element("td", "c-state", this.state, this.since), ...Object.values(this.cells));
    this.root.dataset.conversation = id;
  }

  // shown: { depth, folded: whether sub-agents' spend counts here, children: how many, flat: whether parents stand elsewhere }
  update(entry, shown, now, since) {
    const { stats } = entry;
    const { cells } = this;
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
    setText(cells.model, stats.model_name === "unknown" ? "" : stats.model_name);
    cells.model.title = stats.model_name;
    const cost = costOf(stats, shown);
    setText(cells.cost, spent(cost, stats.unpriced_calls));
    cells.cost.dataset.value = String(cost);
    cells.cost.title = stats.descendants ? `${money(stats.accumulated_cost)} itself, ${money(stats.tree_cost)} with ${count(stats.descendants)} sub-agent${stats.descendants === 1 ? "" : "s"}` : "";
    setText(cells.tokens, short(tokensOf(stats)));
    const usage = stats.accumulated_token_usage;
    const part = contextOf(stats);
    setText(cells.context, part === null ? "" : percent(usage.per_turn_token, usage.context_window));
    cells.context.title = part === null ? "" : `${short(usage.per_turn_token)} of ${short(usage.context_window)} tokens`;
    cells.context.classList.toggle("much", part !== null && part > 0.8);
    setText(cells.calls, short(stats.llm_calls));
    if (entry.flash) this.#flash();
    entry.flash = false;
    this.tick(entry, now, since);
  }

  // What changes with the clock alone.
  tick(entry, now) {
    const { stats } = entry;
    const word = stateWord(stats);
    const life = lifeOf(stats);
    const busy = life === "running" && stats.activity !== null;
    const activity = stats.activity === LLM_ACTIVITY ? "model" : stats.activity;
    setText(this.word, busy ? activity : word);
    this.word.title = busy ? word : "";
    const began = busy ? stats.activity_since : stats.updated_unix_nano / 1e9;
    const lasting = busy || NEEDS[needOf(stats, 0)] !== undefined;
    setText(this.since, lasting && began ? brief(now - began) : "");
    setText(this.below, `${this.word.textContent} ${this.since.textContent}`);
    const burn = entry.burn(now);
    setText(this.cells.burn, burn === null ? "" : money(burn));
    setText(this.cells.age, stats.started_unix_nano ? brief(now - stats.started_unix_nano / 1e9) : "");
  }

  #flash() {
    this.root.classList.add("changed");
    clearTimeout(this.flashing);
    this.flashing = setTimeout(() => this.root.classList.remove("changed"), 250);
  }
}

// What a row says it cost: with its sub-agents where they have no rows.
export const costOf = (stats, shown) => (shown.folded ? stats.tree_cost : stats.accumulated_cost);
