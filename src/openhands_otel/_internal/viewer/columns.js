// The columns of the table of conversations: which there are, which are shown, and the menu that chooses them.
//
// A choice stands in the address, and is kept by this browser for addresses that name none.

import { go, viewOf } from "./address.js";
import { TITLES } from "./facts.js";
import { brief, count, element, FORMATS, money, percent, setText, short, spent } from "./format.js";
import { stateWord } from "./state.js";

const KEPT = "openhands-otel-columns";
const LABEL = "label:";
const ROOM = 240; // pixels for the name
const at = (id) => document.getElementById(id);

const tokensOf = ({ accumulated_token_usage: usage }) => usage.prompt_tokens + usage.completion_tokens;
const contextOf = ({ accumulated_token_usage: usage }) => (usage.context_window ? usage.per_turn_token / usage.context_window : null);
const meanOf = ({ llm_seconds: seconds, llm_calls: calls }) => (calls && seconds ? seconds / calls : null);
const number = (value) => (value === null ? "" : FORMATS.seconds(value));

// name; title; text: sorted as text, and to the left; width: pixels, about; key: what the API sorts it by;
// of(entry, now): what it is sorted by, larger first unless it is text; show(cell, entry, now, cost): fills a cell
const fact = (name, title, field) => ({
  name, title, key: field, text: true, width: 120, of: ({ stats }) => stats[field] ?? "", show: (cell, { stats }) => say(cell, stats[field] ?? ""),
});
const figure = (name, title, of, more = {}) => ({
  name, title, width: 84, of: (entry) => of(entry.stats) ?? -1, show: (cell, { stats }) => setText(cell, short(of(stats))), ...more,
});
const usage = (name, title, field) => figure(name, title, (stats) => stats.accumulated_token_usage[field]);
const COLUMNS = [
  { name: "name", title: "conversation", text: true, width: ROOM, of: ({ stats }) => stats.name ?? stats.conversation_id, key: "name", always: true },
  { name: "state", title: "now", text: true, width: 190, of: ({ stats }) => stateWord(stats), key: "status" },
  { name: "model", title: "model", text: true, width: 150, of: ({ stats }) => stats.model_name, key: "model_name", show(cell, { stats }) {
    say(cell, stats.model_name === "unknown" ? "" : stats.model_name, stats.model_name);
  } },
  { name: "cost", title: "$", width: 136, of: ({ stats }) => stats.accumulated_cost, key: "accumulated_cost", show(cell, { stats }, now, cost) {
    setText(cell, spent(cost, stats.unpriced_calls));
    cell.dataset.value = String(cost);
    cell.title = stats.descendants ? `${money(stats.accumulated_cost)} itself, ${money(stats.tree_cost)} with ${count(stats.descendants)} sub-agent${stats.descendants === 1 ? "" : "s"}` : "";
  } },
  { name: "burn", title: "$/h", width: 104, of: (entry, now) => entry.burn(now) ?? -1, ticks: true, show(cell, entry, now) {
    const burn = entry.burn(now);
    setText(cell, burn === null ? "" : money(burn));
  } },
  figure("tokens", "tokens", tokensOf),
  { name: "context", title: "context", width: 70, of: ({ stats }) => contextOf(stats) ?? -1, show(cell, { stats }) {
    const part = contextOf(stats);
    const { per_turn_token: used, context_window: window } = stats.accumulated_token_usage;
    setText(cell, part === null ? "" : percent(used, window));
    cell.title = part === null ? "" : `${short(used)} of ${short(window)} tokens`;
    cell.classList.toggle("much", part !== null && part > 0.8);
  } },
  figure("calls", "calls", (stats) => stats.llm_calls, { key: "llm_calls" }),
  { name: "age", title: "age", width: 84, of: ({ stats }) => stats.started_unix_nano, key: "started_unix_nano", ticks: true, show(cell, { stats }, now) {
    setText(cell, stats.started_unix_nano ? brief(now - stats.started_unix_nano / 1e9) : "");
  } },
];
const USUAL = COLUMNS.map(({ name }) => name);
const MORE = [
  fact("service", "service", "service"),
  fact("agent", "agent", "agent"),
  fact("provider", "provider", "provider_name"),
  usage("input", "in", "prompt_tokens"),
  usage("cached", "cached", "cache_read_tokens"),
  usage("output", "out", "completion_tokens"),
  figure("tools", "tools", (stats) => stats.tool_calls, { key: "tool_calls" }),
  figure("mean", "s a call", meanOf, { show: (cell, { stats }) => setText(cell, number(meanOf(stats))) }),
  figure("longest", "longest call", (stats) => stats.longest_call_seconds, { key: "longest_call_seconds", show: (cell, { stats }) => setText(cell, number(stats.longest_call_seconds)) }),
  { name: "updated", title: "last change", width: 104, of: ({ stats }) => stats.updated_unix_nano, key: "updated_unix_nano", ticks: true, show(cell, { stats }, now) {
    setText(cell, stats.updated_unix_nano ? brief(now - stats.updated_unix_nano / 1e9) : "");
  } },
];

// The column of a name; undefined where there is none.
export function columnNamed(name) {
  if (!name.startsWith(LABEL)) return [...COLUMNS, ...MORE].find((column) => column.name === name);
  const label = name.slice(LABEL.length);
  const of = ({ stats }) => (Object.hasOwn(stats.labels, label) ? stats.labels[label] : "");
  return { name, title: TITLES[label] ?? label, text: true, width: 120, of, show: (cell, entry) => say(cell, of(entry)) };
}

// Those that are shown now, in order.
export function shownColumns() {
  const asked = viewOf().columns || kept();
  const names = asked ? asked.split(",") : USUAL;
  return [...new Set(["name", ...names])].map(columnNamed).filter(Boolean);
}

// How wide the table has to be for others than the usual, pixels; 0 where it fits by itself.
export function roomFor(columns) {
  const usual = columns.every(({ name }) => USUAL.includes(name));
  return usual ? 0 : columns.reduce((sum, { width }) => sum + width, 0);
}

// The menu. labels: names of labels that conversations have.
export function columnMenu(labels) {
  const menu = at("columns");
  const shown = new Set(shownColumns().map(({ name }) => name));
  const names = [...new Set([...USUAL, ...MORE.map(({ name }) => name), ...labels.map((label) => LABEL + label), ...shown])];
  const box = menu.lastElementChild;
  const key = names.join("\n");
  if (box.dataset.names !== key) {
    box.dataset.names = key;
    const usual = element("button", "quiet-button", "As usual");
    usual.type = "button";
    usual.addEventListener("click", () => choose(USUAL));
    box.replaceChildren(...names.filter((name) => !columnNamed(name).always).map((name) => choice(name, names)), usual);
  }
  for (const input of box.querySelectorAll("input")) input.checked = shown.has(input.value);
}

function choice(name, names) {
  const input = element("input");
  input.type = "checkbox";
  input.value = name;
  input.addEventListener("change", () => {
    const shown = shownColumns().map((column) => column.name);
    choose(input.checked ? [...shown, name].sort((a, b) => names.indexOf(a) - names.indexOf(b)) : shown.filter((each) => each !== name));
  });
  const { title } = columnNamed(name);
  return element("label", "", input, title === "$" ? "cost ($)" : title === "$/h" ? "burn rate ($/h)" : title);
}

function choose(names) {
  const usual = names.join() === USUAL.join();
  keep(usual ? "" : names.join());
  go({ columns: usual ? "" : names.join() }, true);
  dispatchEvent(new Event("addresschange"));
}

// A browser may forbid a page to keep anything.
function kept() {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

function keep(text) {
  try {
    if (text) localStorage.setItem(KEPT, text);
    else localStorage.removeItem(KEPT);
  } catch {
    // then it holds as long as the address does
  }
}

at("columns").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !at("columns").open) return;
  event.stopPropagation();
  at("columns").open = false;
  at("columns").firstElementChild.focus();
});
addEventListener("pointerdown", ({ target }) => {
  if (!at("columns").contains(target)) at("columns").open = false;
});

// A text, the whole of it a hover away.
function say(cell, text, title = text) {
  setText(cell, text);
  cell.title = title;
}
