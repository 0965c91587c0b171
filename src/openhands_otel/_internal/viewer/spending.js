// What was spent in the chosen period, beside the period before, over time and by anything: the upper half of the page.

import { go, viewOf } from "./address.js";
import { Asking } from "./asking.js";
import { Breakdown } from "./breakdown.js";
import { budgetChips, budgets, showBudgets } from "./budgets.js";
import { Chart } from "./chart.js";
import { TITLES } from "./facts.js";
import { count, FORMATS, money, percent, setText, short, spent } from "./format.js";
import { legendOf, overTime, per, stacked } from "./over_time.js";
import { beginBefore, earlierTitle, isRunning, periodQuery, quarter, titleOf } from "./period.js";
import { latency, spend } from "./stream.js";

const TICK_MS = 350;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const at = (id) => document.getElementById(id);

export class Spending {
  // now: the viewer's clock, unix seconds; nameOf: a conversation's name by its id;
  // failed(error): no answer came; began(since, asked): one did, since when its period is (unix seconds, 0 for ever),
  // and whether it is the first of a view; limited(chips): what budgets need a person
  constructor(now, nameOf, { failed, began, limited }) {
    Object.assign(this, { now, began, limited });
    this.chart = new Chart("Spend over time: arrow keys go through it");
    at("over-time").prepend(this.chart.root);
    this.breakdown = new Breakdown(at("where"), nameOf);
    this.begins = new Map();
    this.asking = new Asking({ ask: () => this.#ask(), show: (answers, first) => this.#show(answers, first), failed });
  }

  // The view is another one.
  change() {
    this.asking.change();
  }

  // Money may have moved.
  refresh() {
    this.asking.refresh();
  }

  #ask() {
    const view = viewOf();
    return view.conversation === null ? this.#answers(view) : null;
  }

  async #answers(view) {
    const now = this.now();
    const asked = { ...periodQuery(view, now), where: view.where };
    const [parts, over, took, limits] = await Promise.all([this.breakdown.ask(view, asked), overTime(view, asked, now), latency(asked), budgets()]);
    return { view, parts, over, took, limits, before: await this.#before(view, parts, now) };
  }

  // The period before, up to the same moment of it; null where there is none.
  async #before(view, answer, now) {
    const begin = beginBefore(view, answer.since, answer.until);
    if (begin === null) return null;
    let since = begin;
    if (typeof begin === "object") {
      const known = `${view.period} ${answer.since}`;
      if (!this.begins.has(known)) this.begins.set(known, (await spend(begin)).since);
      since = this.begins.get(known);
    }
    const until = isRunning(view) ? since + (now - answer.since) : answer.since;
    if (!(until > since)) return null;
    return (await spend({ since: Math.max(0, quarter(since)), until, where: view.where })).total;
  }

  #show({ view, parts, over, took, limits, before }, first) {
    const { total } = parts;
    this.began(parts.since ?? 0, first);
    setText(at("period-name"), `${titleOf(view)} (${parts.timezone})`);
    countTo(total);
    const earlier = before && before.accumulated_cost > 0;
    setText(at("before"), earlier ? `${earlierTitle(view)} ${spent(before.accumulated_cost, before.unpriced_calls || before.read_cost)}` : "");
    showFigures(total);
    showLatency(total, took);
    showBudgets(at("budgets"), limits, parts.timezone);
    this.limited(budgetChips(limits, parts.timezone));
    this.#showChart(view, over);
    this.breakdown.show(view, parts);
  }

  #showChart(view, over) {
    const { columns, kinds, series } = stacked(view, over.columns);
    this.chart.show(columns, series);
    at("legend").replaceChildren(...legendOf(view, kinds));
    setText(at("chart-note"), per(over.unit));
  }
}

function showFigures(total) {
  const usage = total.accumulated_token_usage;
  const calls = total.llm_calls;
  setText(at("calls"), short(calls));
  setText(at("calls-note"), total.unpriced_calls ? `${count(total.unpriced_calls)} without a price` : "");
  setText(at("tokens-in"), short(usage.prompt_tokens));
  setText(at("tokens-in-note"), usage.prompt_tokens ? `${percent(usage.cache_read_tokens, usage.prompt_tokens)} from cache` : "");
  setText(at("tokens-out"), short(usage.completion_tokens));
  setText(at("tokens-out-note"), usage.reasoning_tokens ? `${short(usage.reasoning_tokens)} reasoning` : "");
  const notes = [];
  if (total.cache_savings > 0) notes.push(`${money(total.cache_savings)} saved by caching`);
  if (total.read_cost > 0) notes.push(`${money(total.read_cost)} read from OpenHands' own files: a lower bound`);
  setText(at("total-note"), notes.join(" · "));
}

// Percentiles of the calls whose spans are kept; of the others only the mean is known.
function showLatency(total, took) {
  const { seconds } = FORMATS;
  const mean = total.llm_calls && total.llm_seconds ? seconds(total.llm_seconds / total.llm_calls) : "";
  setText(at("latency"), took.calls ? `p50 ${seconds(took.p50)}` : mean || "\u2013");
  setText(at("latency-note"), took.calls ? `p95 ${seconds(took.p95)}, longest ${seconds(took.longest)}` : mean && "on average");
  at("latency").title = took.calls ? `of ${count(took.calls)} calls whose spans are kept${mean && `; all took ${mean} on average`}` : "";
}

let reached = null;
let animation = 0;

// The number runs to its new value; the exact value is in the attribute at once.
function countTo(total) {
  const target = at("total");
  const cost = total.accumulated_cost;
  const text = (amount) => (amount === 0 && cost === 0 && !total.unpriced_calls ? money(0) : spent(amount, total.unpriced_calls || total.read_cost));
  target.dataset.value = String(cost);
  document.title = `${text(cost)} OpenHands spend`;
  cancelAnimationFrame(animation);
  if (reached === null || still.matches || document.hidden || cost < reached || reached === cost) {
    reached = cost;
    return setText(target, text(cost));
  }
  const from = reached;
  const began = performance.now();
  const step = (now) => {
    const part = Math.min(1, (now - began) / TICK_MS);
    reached = part === 1 ? cost : from + (cost - from) * (1 - (1 - part) ** 3);
    setText(target, text(reached));
    if (part < 1) animation = requestAnimationFrame(step);
  };
  animation = requestAnimationFrame(step);
}

// What is spent now, whatever the period: from the stream.
export function showLive(totals) {
  setText(at("burn"), money(totals.burn.per_hour));
  setText(at("burn-minute"), `${money(totals.burn.per_minute)} / min`);
  setText(at("running"), count(totals.conversations_running));
  setText(at("seen"), `${count(totals.conversations_open)} open, ${count(totals.conversations_seen)} seen`);
}

// The choice of what the chart is stacked by.
export function stackChoice(names) {
  const select = at("stack");
  const { stack } = viewOf();
  const options = [...names.map((name) => [name, TITLES[name] ?? name]), ["", "nothing"]];
  const same = options.length === select.length && options.every(([value], index) => select.options[index].value === value);
  if (!same) select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.value = stack;
}
at("stack").addEventListener("change", () => go({ stack: at("stack").value }));
