// The live page: follows the collector's stream and keeps one card per conversation.

import { Card } from "./card.js";
import { FAILURES, OUTCOMES } from "./facts.js";
import { duration, element, setText } from "./format.js";
import { adoptToken, ask, follow, keepToken, Unauthorized } from "./stream.js";
import { showTrouble } from "./trouble.js";
import { showBreakdown, showChart, showToday, showTotals } from "./totals.js";

const ORDER_EVERY_MS = 1_000; // cards that jump about cannot be read
const ASK_EVERY_MS = 10_000;
const CLOSED_PAGE = 30;
const CARD_WIDTH = 390;
const GAP = 14;

const at = (id) => document.getElementById(id);
const cards = new Map();
const changed = new Set();
let totals = null;
let receiver = null;
let connection = "connecting";
let clockOffset = 0;
let closedShown = CLOSED_PAGE;
let drawing = false;
let orderDue = true;

const now = () => Date.now() / 1000 + clockOffset;

function onUpdate(update) {
  if (update.type === "snapshot") {
    cards.clear();
    changed.clear();
    for (const stats of update.state.conversations) put(stats);
    totals = update.state.totals;
    receiver = update.state.receiver;
    clockOffset = update.state.server_unix_nano / 1e9 - Date.now() / 1000;
  } else if (update.type === "conversation") {
    put(update.conversation, true);
  } else if (update.type === "totals") {
    totals = update.totals;
    receiver = update.receiver ?? null;
  } else if (update.type === "removed") {
    cards.delete(update.conversation_id);
    orderDue = true;
  }
  draw();
}

function put(stats, flash = false) {
  const id = stats.conversation_id;
  let entry = cards.get(id);
  if (!entry) cards.set(id, (entry = { card: new Card(id), stats: null, flash: false }));
  const before = entry.stats;
  // A new card, another parent, closed or opened: those change places; others wait for the next ordering.
  if (!before || before.parent_id !== stats.parent_id || before.closed !== stats.closed) orderDue = true;
  entry.flash ||= flash && before !== null && before.accumulated_cost !== stats.accumulated_cost;
  entry.stats = stats;
  changed.add(id);
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const time = now();
    for (const id of changed) {
      const entry = cards.get(id);
      if (!entry) continue;
      entry.card.update(entry.stats, entry.flash);
      entry.card.tick(time);
      entry.flash = false;
    }
    changed.clear();
    if (totals) showTotals(totals);
    showTrouble(at("trouble"), receiver, time);
    showConnection();
    if (orderDue) order();
  });
}

function order() {
  orderDue = false;
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const families = group();
  const outcome = at("outcome").value;
  const wanted = (id) => matches(id, words, outcome, families);
  const newest = (ids) => ids.sort((a, b) => activity(b, families) - activity(a, families));
  const roots = newest(families.roots.filter(wanted));
  const isClosed = (id) => cards.get(id).stats.closed && !(families.children.get(id) ?? []).some((child) => !cards.get(child).stats.closed);
  const open = roots.filter((id) => !isClosed(id));
  const closed = roots.filter(isClosed);
  columns(at("open"), open, families);
  const box = at("closed-box");
  box.hidden = closed.length === 0;
  // With nothing open, the closed ones are what there is to see; after that it is for the reader to say.
  if (!box.dataset.touched) box.open = open.length === 0;
  const failed = closed.filter((id) => FAILURES.includes(cards.get(id).stats.outcome)).length;
  setText(at("closed-title"), `Closed (${closed.length}${failed ? `, ${failed} failed` : ""})`);
  columns(at("closed"), box.open ? closed.slice(0, closedShown) : [], families);
  at("more").hidden = closed.length <= closedShown;
  const empty = at("empty");
  const filtered = words.length > 0 || outcome !== "";
  empty.hidden = open.length > 0 || (cards.size > 0 && !filtered);
  if (filtered && cards.size > 0) setText(empty, "No open conversation matches.");
}

// Roots, and children by parent. Those that name each other as parents count as roots.
function group() {
  const children = new Map();
  const roots = [];
  for (const [id, { stats }] of cards) {
    if (cards.has(stats.parent_id) && !above(stats.parent_id).has(id)) {
      if (!children.has(stats.parent_id)) children.set(stats.parent_id, []);
      children.get(stats.parent_id).push(id);
    } else {
      roots.push(id);
    }
  }
  return { roots, children };
}

function above(id) {
  const seen = new Set();
  for (let current = id; cards.has(current) && !seen.has(current); current = cards.get(current).stats.parent_id) seen.add(current);
  return seen;
}

function activity(id, families) {
  const below = (families.children.get(id) ?? []).map((child) => activity(child, families));
  return Math.max(cards.get(id).stats.received_unix_nano, ...below);
}

function matches(id, words, outcome, families) {
  const { card, stats } = cards.get(id);
  const itself = (!outcome || stats.outcome === outcome) && words.every((word) => card.searchText.includes(word));
  return itself || (families.children.get(id) ?? []).some((child) => matches(child, words, outcome, families));
}

// Deals cards out to as many columns as fit, in reading order, so that a tall card leaves no hole beside it.
function columns(box, ids, families) {
  const fitting = Math.max(1, Math.floor((at("conversations").clientWidth + GAP) / (CARD_WIDTH + GAP)));
  while (box.children.length < fitting) box.append(element("div", "column"));
  while (box.children.length > fitting) box.lastChild.remove();
  [...box.children].forEach((column, index) => arrange(column, ids.filter((_, place) => place % fitting === index), families, false));
}

// Moves only what is out of place, so that focus, scroll and open rows stay.
function arrange(box, ids, families, asChild) {
  let place = box.firstChild;
  for (const id of ids) {
    const { card } = cards.get(id);
    const wanted = card.element(asChild);
    if (place === wanted) place = place.nextSibling;
    else box.insertBefore(wanted, place);
    arrange(card.children, families.children.get(id) ?? [], families, true);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
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
  if (state === "locked") at("token-dialog").showModal();
}

async function askAround() {
  if (connection !== "live" || document.hidden) return;
  try {
    const time = now();
    const since = (Math.floor(time / 60) - 59) * 60;
    const answer = await ask(`/api/v1/history?since=${since}&until=${time + 60}&bucket_s=60`);
    showChart(await answer.json(), time);
    const [today, ever] = await Promise.all(["since=today&until=today", ""].map((asked) => ask(`/api/v1/spend?${asked}`)));
    showToday(await today.json(), await ever.json());
    if (at("where").open) showBreakdown(await (await ask("/api/v1/totals")).json());
  } catch (error) {
    if (error instanceof Unauthorized) onState("locked");
  }
}

function everySecond() {
  const time = now();
  for (const { card, stats } of cards.values()) if (card.root?.isConnected && stats && card.stats) card.tick(time);
  showConnection();
  if (receiver) showTrouble(at("trouble"), receiver, time);
}

at("filter").addEventListener("input", order);
at("outcome").append(...Object.entries(OUTCOMES).map(([value, text]) => {
  const option = element("option", "", text);
  option.value = value;
  return option;
}));
at("outcome").addEventListener("input", order);
at("closed-box").addEventListener("toggle", order);
at("closed-box").firstElementChild.addEventListener("click", () => { at("closed-box").dataset.touched = "yes"; });
at("where").addEventListener("toggle", askAround);
at("more").addEventListener("click", () => {
  closedShown += CLOSED_PAGE;
  order();
});
at("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
at("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepToken(at("token").value.trim());
  try {
    await ask("/api/v1/totals");
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
    if (state === "live") askAround();
  });
}

adoptToken().catch((error) => setText(at("token-error"), error.message)).then(start);
setInterval(everySecond, 1_000);
setInterval(() => { orderDue = true; draw(); }, ORDER_EVERY_MS);
setInterval(askAround, ASK_EVERY_MS);
document.addEventListener("visibilitychange", askAround);
addEventListener("resize", order);
