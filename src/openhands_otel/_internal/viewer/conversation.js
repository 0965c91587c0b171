// One conversation: its facts, what it cost over time and for what, its runs and sub-agents; to be copied and taken along.

import { changed, condition } from "./address.js";
import { showCalls } from "./calls.js";
import { Card } from "./card.js";
import { Chart } from "./chart.js";
import { csvOf, markdownOf, table } from "./documents.js";
import { OUTCOMES, TITLES } from "./facts.js";
import { count, duration, element, money, setText, spent } from "./format.js";
import { scoped, showParts } from "./parts.js";
import { timeIn } from "./period.js";
import { stateWord } from "./state.js";
import { ask, Pace, spend } from "./stream.js";
import { showTimeline } from "./timeline.js";

const COLUMNS = 60;
const BUCKETS_S = [60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800];
const PAGE = 100;
const LEAST = 1e-9;

export class ConversationPage {
  // known: Conversations; now: the viewer's clock, unix seconds
  constructor(box, known, now) {
    Object.assign(this, { box, known, now, id: null, stops: [] });
  }

  // Shows one; null for none.
  open(id) {
    this.id = id;
    this.stats = undefined;
    this.said = null;
    this.shownFacts = [];
    this.box.hidden = id === null;
    this.pausing = false;
    this.pace = new Pace();
    for (const stop of this.stops.splice(0)) stop();
    if (id === null) return this.box.replaceChildren();
    this.card = new Card(id);
    this.chart = new Chart("Spend over time: arrow keys go through it");
    this.heading = element("h2", "", id);
    this.heading.tabIndex = -1;
    this.note = element("p", "note");
    const back = element("a", "back", "\u2190 all conversations");
    back.href = changed({ conversation: null });
    this.copied = element("span", "note");
    this.copied.setAttribute("role", "status");
    const buttons = element("p", "buttons", button("Copy as Markdown", () => this.#copy()), button("Download CSV", () => this.#download()), this.copied);
    this.facts = element("dl", "facts-list");
    this.parts = element("table", "parts");
    this.runs = element("table", "parts runs");
    this.children = element("table", "parts runs");
    this.childrenBox = section("Sub-agents", this.children);
    this.text = element("textarea", "copy");
    this.text.readOnly = true;
    this.text.hidden = true;
    this.text.setAttribute("aria-label", "The conversation as Markdown");
    this.box.replaceChildren(
      back,
      element("div", "title-line", this.heading, buttons), this.text, this.note,
      element("div", "halves", this.card.element(false), element("div", "", section("Cost over time", this.chart.root), section("Facts", this.facts))),
      section("What it was spent on", this.parts),
      section("Runs", this.runs),
      this.childrenBox,
    );
    const [calls, timeline] = ["Calls", "Timeline"].map((title) => {
      const content = element("div");
      this.box.append(element("section", "part", element("h3", "", title), content));
      return content;
    });
    this.stops.push(showCalls(calls, id, () => this.zone), showTimeline(timeline, id));
    this.heading.focus({ preventScroll: true });
    scrollTo({ top: 0 });
    this.#ask();
  }

  // It may have changed.
  update() {
    if (this.id === null) return;
    const entry = this.known.get(this.id);
    if (entry && entry.stats !== this.stats) this.#showStats(entry.stats);
    if (entry && !this.pausing && entry.stats !== this.askedOf) this.#ask();
  }

  tick() {
    if (this.id !== null && this.stats) this.card.tick(this.now());
  }

  async #ask() {
    const { id } = this;
    const began = performance.now();
    this.pausing = true;
    this.askedOf = this.known.get(id)?.stats;
    const where = condition("conversation", id);
    try {
      const [stats, parts, runs, children] = await Promise.all([
        this.#stats(id), spend({ by: "role,model", where }),
        listOf(`api/v1/runs?conversation=${encodeURIComponent(id)}&limit=${PAGE}`),
        listOf(`api/v1/conversations?parent=${encodeURIComponent(id)}&limit=${PAGE}&sort=-accumulated_cost`),
      ]);
      const columns = stats ? await this.#columns(stats) : [];
      if (id !== this.id) return;
      this.zone = parts.timezone;
      if (stats) this.#showStats(stats);
      this.#showParts(parts, stats);
      this.#showRuns(runs, parts.total);
      this.#showChildren(children.items);
      this.chart.show(columns, [{ name: "spend", tint: 0 }]);
      this.said = { parts, runs: runs.items, children: children.items };
    } catch (error) {
      if (id === this.id) setText(this.note, `This cannot be shown now: ${error.message}`);
    }
    setTimeout(() => {
      if (id !== this.id) return;
      this.pausing = false;
      this.update();
    }, this.pace.after(performance.now() - began));
  }

  // What is in memory is newest; else what the archive has; else nothing, of what was only read from disk.
  async #stats(id) {
    const entry = this.known.get(id);
    if (entry && !entry.past) return entry.stats;
    try {
      return await (await ask(`api/v1/conversations/${encodeURIComponent(id)}`)).json();
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async #columns(stats) {
    const first = Math.min(stats.started_unix_nano / 1e9, stats.first_call_unix_s ?? Infinity);
    const last = Math.max(first + 60, stats.closed || stats.stale ? stats.received_unix_nano / 1e9 : this.now());
    const bucket = BUCKETS_S.find((each) => (last - first) / each <= COLUMNS) ?? BUCKETS_S.at(-1);
    const since = Math.floor(first / bucket) * bucket;
    const number = Math.max(8, Math.ceil((last - since) / bucket));
    const answer = await ask(`api/v1/history?conversation=${encodeURIComponent(stats.conversation_id)}&since=${since}&until=${since + number * bucket}&bucket_s=${bucket}`);
    const history = await answer.json();
    const values = new Array(number).fill(0);
    let before = history.before?.accumulated_cost ?? 0;
    for (const point of history.points) {
      const index = Math.floor((point.unix_s - since) / bucket);
      if (index >= 0 && index < number) values[index] += Math.max(0, point.accumulated_cost - before);
      before = point.accumulated_cost;
    }
    return values.map((cost, index) => {
      const begin = since + index * bucket;
      const moment = timeIn(this.zone, begin, true);
      // The day where there are several; the hour too where a day has several columns.
      const name = last - first < 86_400 ? moment.slice(11) : moment.slice(5, bucket >= 86_400 ? 10 : 16);
      return { name, title: `${moment} to ${timeIn(this.zone, begin + bucket)}`, parts: [cost] };
    });
  }

  #showStats(stats) {
    const flash = this.stats !== undefined && this.stats?.accumulated_cost !== stats.accumulated_cost;
    this.stats = stats;
    this.card.update(stats, flash);
    this.card.tick(this.now());
    setText(this.heading, stats.name ?? stats.conversation_id);
    document.title = `${money(stats.tree_cost)} ${stats.name ?? stats.conversation_id}`;
    this.shownFacts = factsOf(stats, this.zone);
    this.facts.replaceChildren(...this.shownFacts.map(([name, text, parent]) => {
      const value = element("dd", "", text);
      if (parent) {
        const link = element("a", "", this.known.nameOf(text) ?? text);
        link.href = changed({ conversation: text });
        value.replaceChildren(link);
      }
      return element("div", "", element("dt", "", name), value);
    }));
  }

  #showParts({ groups, total }, stats) {
    const rows = groups.map((group) => ({ group, value: `${group.keys.role} · ${group.keys.model}`, name: element("span", "name", `${group.keys.role} · ${group.keys.model}`) }));
    showParts(this.parts, "role and model", rows, total);
    this.card.root.hidden = stats === null;
    const notes = [];
    if (stats === null && !groups.length) notes.push(`No conversation ${this.id} is known here.`);
    if (total.read_cost > 0) notes.push(`${money(total.read_cost)} of this was read from OpenHands' own files: a lower bound.`);
    setText(this.note, notes.join(" "));
    if (stats === null) document.title = `${spent(total.accumulated_cost, total.unpriced_calls || total.read_cost)} ${this.id}`;
  }

  #showRuns({ items, count: known }, total) {
    const rows = items.map((run) => runRow(run, this.zone, this.now()));
    const rest = total.accumulated_cost - items.reduce((sum, run) => sum + run.accumulated_cost, 0);
    if (Math.abs(rest) > LEAST) {
      const name = known > items.length ? `earlier runs (${count(known - items.length)}), or outside of any` : "outside of any run";
      rows.push(cells("row", [name, "", "", "", "", money(rest)], rest));
    }
    this.runs.replaceChildren(
      element("thead", "", cells("col", RUN_TITLES)), element("tbody", "", ...rows),
      element("tfoot", "", cells("row", ["total", "", "", "", count(total.llm_calls), spent(total.accumulated_cost, total.unpriced_calls || total.read_cost)], total.accumulated_cost)),
    );
  }

  #showChildren(children) {
    this.childrenBox.hidden = children.length === 0;
    this.children.replaceChildren(
      element("thead", "", cells("col", ["sub-agent", "state", "model", "calls", "$ with its own"])),
      element("tbody", "", ...children.map((stats) => {
        const link = element("a", "name", stats.name ?? stats.conversation_id);
        link.href = changed({ conversation: stats.conversation_id });
        return cells("row", [link, stateWord(stats), stats.model_name, count(stats.llm_calls), spent(stats.tree_cost, stats.unpriced_calls)], stats.tree_cost);
      })),
    );
  }

  #document() {
    const { parts, runs, children } = this.said ?? { parts: { groups: [], total: null }, runs: [], children: [] };
    return markdownOf(this.stats?.name ?? this.id, this.shownFacts, [
      table("Spent on", ["role", "model", "cost USD", "calls", "tokens in", "tokens out"], parts.groups.map((group) => [
        group.keys.role, group.keys.model, group.accumulated_cost, group.llm_calls,
        group.accumulated_token_usage.prompt_tokens, group.accumulated_token_usage.completion_tokens]),
      ),
      table("Runs", ["run", "begun", "outcome", "error", "calls", "cost USD"], runs.map((run) => [
        run.number, timeIn(this.zone, run.begun, true), OUTCOMES[run.outcome] ?? run.outcome ?? "under way", run.error_type ?? "", run.llm_calls, run.accumulated_cost])),
      table("Sub-agents", ["id", "name", "calls", "cost USD with its own"], children.map((stats) => [stats.conversation_id, stats.name ?? "", stats.llm_calls, stats.tree_cost])),
    ]);
  }

  async #copy() {
    const text = this.#document();
    try {
      await navigator.clipboard.writeText(text);
      setText(this.copied, "copied");
    } catch {
      // A page that came over plain HTTP from elsewhere may not: then it is there to be copied by hand.
      this.text.value = text;
      this.text.hidden = false;
      this.text.select();
      setText(this.copied, "press Ctrl-C to copy");
    }
  }

  async #download() {
    const answer = await spend({ by: "hour,role,model", where: condition("conversation", this.id) });
    const rows = answer.groups.map(({ keys, accumulated_token_usage: usage, ...group }) => [
      keys.hour, keys.role, keys.model, group.accumulated_cost, usage.prompt_tokens, usage.cache_read_tokens, usage.completion_tokens,
      group.llm_calls, group.unpriced_calls]);
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([csvOf(CSV_TITLES, rows)], { type: "text/csv" }));
    link.download = `${this.id.slice(0, 8).replace(/[^\w-]/g, "_")}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

const RUN_TITLES = ["run", "begun", "took", "ended", "calls", "$"];
const CSV_TITLES = ["hour", "role", "model", "cost_usd", "prompt_tokens", "cache_read_tokens", "completion_tokens", "llm_calls", "unpriced_calls"];

function factsOf(stats, zone) {
  const moment = (nanos) => (nanos ? timeIn(zone, nanos / 1e9, true) : "");
  return [
    ["id", stats.conversation_id],
    ["sub-agent of", stats.parent_id, true],
    ["state", stateWord(stats)],
    ["error", stats.error_type],
    ["agent", stats.agent],
    ["service", stats.service],
    ["provider", stats.provider_name],
    ["SDK", stats.sdk_version],
    ["began", moment(stats.started_unix_nano)],
    ["last change", moment(stats.updated_unix_nano)],
    ...Object.entries(stats.labels).filter(([name]) => name !== "name").map(([name, value]) => [TITLES[name] ?? name, value]),
  ].filter(([, text]) => text !== null && text !== undefined && text !== "");
}

function runRow(run, zone, now) {
  const ended = run.ended === null && run.outcome === null ? "under way" : OUTCOMES[run.outcome] ?? run.outcome ?? "";
  const error = run.error_type ? `${ended}: ${run.error_type}` : ended;
  return cells("row", [String(run.number), timeIn(zone, run.begun, true), duration((run.ended ?? now) - run.begun), error, count(run.llm_calls), money(run.accumulated_cost)], run.accumulated_cost);
}

// A row: the first cell names it, the last is money.
function cells(scope, values, amount) {
  const made = values.map((value, index) => {
    const isHead = scope === "col" || index === 0;
    const cell = element(isHead ? "th" : "td", index >= values.length - 2 ? "num" : "", value);
    return isHead ? scoped(scope, cell) : cell;
  });
  if (amount !== undefined) made.at(-1).dataset.value = String(amount);
  return element("tr", "", ...made);
}

const section = (title, ...content) => element("section", "part", element("h3", "", title), element("div", "wide", ...content));

function button(text, click) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", click);
  return made;
}

async function listOf(path) {
  const answer = await ask(path);
  return { items: await answer.json(), count: Number(answer.headers.get("x-total-count")) };
}
