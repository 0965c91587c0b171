// The head of the page: total spend, figures, the last hour, and where the money goes.

import { bar, count, element, money, percent, setText, short, spent } from "./format.js";

const TICK_MS = 350;
const MINUTES = 60;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const at = (id) => document.getElementById(id);

let shown = null;
let animation = 0;

export function showTotals(totals) {
  countTo(totals.accumulated_cost);
  const usage = totals.accumulated_token_usage;
  setText(at("burn"), money(totals.burn.per_hour));
  setText(at("burn-minute"), `${money(totals.burn.per_minute)} / min`);
  setText(at("running"), count(totals.conversations_running));
  setText(at("seen"), `${count(totals.conversations_open)} open, ${count(totals.conversations_seen)} seen`);
  setText(at("calls"), short(totals.llm_calls));
  setText(at("calls-note"), totals.unpriced_calls ? `${count(totals.unpriced_calls)} without a price` : "all priced");
  setText(at("tokens-in"), short(usage.prompt_tokens));
  setText(at("tokens-in-note"), usage.prompt_tokens ? `${percent(usage.cache_read_tokens, usage.prompt_tokens)} from cache` : "");
  setText(at("tokens-out"), short(usage.completion_tokens));
  setText(at("tokens-out-note"), usage.reasoning_tokens ? `${short(usage.reasoning_tokens)} reasoning` : "");
  setText(at("total-note"), totals.cache_savings > 0 ? `${money(totals.cache_savings)} saved by caching` : "");
  document.title = `${money(totals.accumulated_cost)} OpenHands spend`;
}

// The number runs to its new value; the exact value is in the attribute at once.
function countTo(cost) {
  const target = at("total");
  target.dataset.value = String(cost);
  cancelAnimationFrame(animation);
  if (shown === null || still.matches || document.hidden || cost < shown) {
    shown = cost;
    setText(target, money(cost));
    return;
  }
  const from = shown;
  const began = performance.now();
  const step = (now) => {
    const part = Math.min(1, (now - began) / TICK_MS);
    shown = part === 1 ? cost : from + (cost - from) * (1 - (1 - part) ** 3);
    setText(target, money(shown));
    if (part < 1) animation = requestAnimationFrame(step);
  };
  animation = requestAnimationFrame(step);
}

export function showChart(history, now) {
  const spent = new Array(MINUTES).fill(0);
  let before = history.before?.accumulated_cost ?? 0;
  const first = Math.floor(now / 60) - MINUTES + 1;
  for (const point of history.points) {
    const index = Math.floor(point.unix_s / 60) - first;
    if (index >= 0 && index < MINUTES) spent[index] += Math.max(0, point.accumulated_cost - before);
    before = point.accumulated_cost;
  }
  const most = Math.max(...spent);
  at("chart").replaceChildren(...spent.map((cost, index) => column(cost, most, index)));
  setText(at("chart-note"), most > 0 ? `most: ${money(most)}` : "nothing spent");
}

function column(cost, most, index) {
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const height = cost > 0 ? Math.max(4, (cost / most) * 92) : 2;
  const places = { x: index * 10 + 1.5, y: 96 - height, width: 7, height };
  for (const [name, value] of Object.entries(places)) rect.setAttribute(name, String(value));
  if (cost === 0) rect.setAttribute("class", "quiet");
  return rect;
}

// Spend of today, and what an import has read from OpenHands' own files: a lower bound, and no part of the total above.
export function showToday(today, ever) {
  const { accumulated_cost: cost, unpriced_calls: unpriced, read_cost: read } = today.total;
  setText(at("today"), `${spent(cost, unpriced || read)} today (${today.timezone})${read ? `, ${money(read)} of it read from disk` : ""}`);
  at("today").hidden = false;
  at("read").hidden = ever.total.read_cost === 0;
  setText(at("read"), `and ${money(ever.total.read_cost)}+ ever, read from OpenHands' own files: a lower bound`);
}

const PARTS = { by_model: "Model", by_role: "Role", by_provider: "Provider", by_agent: "Agent", by_service: "Service" };

export function showBreakdown(breakdown) {
  const whole = breakdown.totals.accumulated_cost;
  at("breakdown").replaceChildren(
    ...Object.entries(PARTS)
      .filter(([name]) => breakdown[name].length > 0)
      .map(([name, title]) => element("section", "", element("h3", "", title), ...breakdown[name].slice(0, 8).map((share) => row(share, whole)))),
  );
}

function row(share, whole) {
  const part = whole > 0 ? share.accumulated_cost / whole : 0;
  return element("div", "share", element("span", "name", share.name), element("span", "", spent(share.accumulated_cost, share.unpriced_calls)), bar(["input", part]));
}
