// The live page: follows the collector's stream, and shows what its address says.

import { go, viewOf } from "./address.js";
import { ConversationPage } from "./conversation.js";
import { columnMenu } from "./columns.js";
import { Conversations } from "./conversations.js";
import { DIMENSIONS, OUTCOMES } from "./facts.js";
import { duration, element, setText } from "./format.js";
import { List, showFilters } from "./list.js";
import { adoptToken } from "./login.js";
import { OWN, PERIODS } from "./period.js";
import { showLive, Spending, stackChoice } from "./spending.js";
import { ask, follow, keepToken, lookAt, Unauthorized } from "./stream.js";
import { showTrouble } from "./trouble.js";

const ASK_EVERY_MS = 30_000;
const TYPING_MS = 250;

const at = (id) => document.getElementById(id);
const now = () => Date.now() / 1000 + clockOffset;
const known = new Conversations();
const list = new List(known, now);
const spending = new Spending(now, (id) => known.nameOf(id), {
  failed(error) {
    if (error instanceof Unauthorized) onState("locked");
    else setText(at("spend-error"), error.message);
  },
  // What went wrong counts from the begin of the period on. Where that moves by itself, rows hold still.
  began(since, asked) {
    const moved = list.since !== since;
    list.since = since;
    setText(at("spend-error"), "");
    if (asked && moved && list.view) list.order();
  },
  limited: (chips) => list.limited(chips),
});
const conversation = new ConversationPage(at("conversation"), known, now);
let totals = null;
let receiver = null;
let connection = "connecting";
let clockOffset = 0;
let drawing = false;
let shownView = null;
let left = 0; // how far the overview was scrolled when it was left

function onUpdate(update) {
  const time = now();
  if (update.type === "snapshot") {
    clockOffset = update.state.server_unix_nano / 1e9 - Date.now() / 1000;
    known.reset(update.state.conversations, now());
    totals = update.state.totals;
    receiver = update.state.receiver;
    spending.refresh();
  } else if (update.type === "changes") {
    for (const changes of update.conversations) known.change(changes, time);
  } else if (update.type === "conversation") {
    known.put(update.conversation, time);
  } else if (update.type === "totals") {
    if (update.totals.accumulated_cost !== totals?.accumulated_cost || update.totals.llm_calls !== totals.llm_calls) spending.refresh();
    totals = update.totals;
    receiver = update.receiver ?? null;
  } else if (update.type === "removed") {
    known.remove(update.conversation_id);
  }
  draw();
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (totals) {
      showLive(totals);
      list.ever = totals.accumulated_cost;
    }
    choices();
    if (shownView?.conversation !== null) conversation.update();
    else if (totals && !list.view) list.order();
    else list.update();
    showTrouble(at("trouble"), receiver, now());
    showConnection();
  });
}

// The address is another one.
function show() {
  const before = shownView;
  const view = viewOf();
  if (before?.conversation === null && view.conversation !== null) left = scrollY;
  shownView = view;
  const single = view.conversation !== null;
  at("overview").hidden = single;
  at("periods").hidden = single;
  at("own-period").hidden = single || view.period !== OWN;
  showFilters(view);
  if (single) at("filters").hidden = true;
  for (const button of at("periods").children) button.setAttribute("aria-pressed", String(button.dataset.period === view.period));
  for (const button of at("as").children) button.setAttribute("aria-pressed", String(button.dataset.as === view.as));
  if (at("filter") !== document.activeElement) at("filter").value = view.search;
  at("outcome").value = view.outcome;
  [at("from").value, at("to").value] = [view.from, view.to];
  choices();
  if (view.conversation !== (before?.conversation ?? null)) conversation.open(view.conversation);
  lookAt(view.conversation);
  if (single) return;
  const same = (other, ...names) => other && names.every((name) => String(other[name]) === String(view[name]));
  if (before?.conversation !== null || !same(before, "period", "from", "to", "where", "stack", "by")) spending.change();
  // Who comes back from a conversation finds the list as it was left.
  if (same(list.view, "where", "search", "show", "outcome", "sort", "as")) list.showAgain();
  else if (totals) list.order();
  if (before && before.conversation !== null) {
    scrollTo({ top: left });
    list.focus(before.conversation);
  }
}

function choices() {
  const view = viewOf();
  const labels = known.labelNames();
  stackChoice([...DIMENSIONS, ...labels]);
  spending.breakdown.choose(view, labels);
  columnMenu(labels);
}

function showConnection() {
  const pill = at("connection");
  pill.dataset.state = connection;
  const heard = totals?.received_unix_nano ? `last data ${duration(now() - totals.received_unix_nano / 1e9)} ago` : "no data yet";
  const words = { live: `live, ${heard}`, lost: "connection lost, trying again", locked: "token needed" };
  setText(at("connection-text"), words[connection] ?? "connecting");
}

function onState(state) {
  connection = state;
  showConnection();
  if (state === "locked" && !at("token-dialog").open) at("token-dialog").showModal();
}

function everySecond() {
  if (document.hidden) return;
  if (shownView?.conversation === null) list.tick();
  else conversation.tick();
  showConnection();
  if (receiver) showTrouble(at("trouble"), receiver, now());
}

function choice(text, data, changes) {
  const button = element("button", "", text);
  button.type = "button";
  Object.assign(button.dataset, data);
  button.addEventListener("click", () => go(changes));
  return button;
}

at("periods").append(
  ...Object.entries(PERIODS).map(([period, text]) => choice(text, { period }, { period, from: "", to: "" })),
  choice("from\u2013to", { period: OWN }, { period: OWN }),
);
at("as").append(choice("table", { as: "table" }, { as: "table" }), choice("cards", { as: "cards" }, { as: "cards" }));
at("own-period").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ period: OWN, from: at("from").value, to: at("to").value });
});
let typing = 0;
at("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => go({ search: at("filter").value.trim() }, viewOf().search !== ""), TYPING_MS);
});
at("outcome").append(...Object.entries(OUTCOMES).map(([value, text]) => new Option(text, value)));
at("outcome").addEventListener("change", () => go({ outcome: at("outcome").value }));
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at(viewOf().conversation === null ? "conversations" : "conversation").focus();
});
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && viewOf().conversation === null) {
    event.preventDefault();
    at("filter").focus();
  } else if (event.key === "Escape" && viewOf().conversation !== null) {
    go({ conversation: null });
  }
});
at("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
at("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepToken(at("token").value.trim());
  try {
    await ask("api/v1/totals");
  } catch {
    setText(at("token-error"), "That is not the token.");
    return;
  }
  at("token-dialog").close();
  start();
});

function start() {
  follow(onUpdate, (state) => {
    onState(state);
    if (state === "live") spending.refresh();
  });
}

addEventListener("addresschange", show);
adoptToken().catch((error) => setText(at("token-error"), error.message)).then(() => {
  show();
  start();
});
setInterval(everySecond, 1_000);
setInterval(() => spending.refresh(), ASK_EVERY_MS);
document.addEventListener("visibilitychange", () => spending.refresh());
