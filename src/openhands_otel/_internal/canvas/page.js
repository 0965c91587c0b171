// What was spent as a page inside Agent Canvas: the viewer's own figures, tables and chart in Canvas' window and colours.
//
// Canvas runs one module, so this one goes there with all that it imports (bundle.py). It lives in a shadow root: what
// Canvas' styles and ours say of the same classes stays apart.

import { hashOf, viewOf } from "./address.js";
import { Asking } from "./asking.js";
import { budgets, showBudgets } from "./budgets.js";
import { Chart } from "./chart.js";
import { Conversations, lifeOf, needOf } from "./conversations.js";
import { DIMENSIONS, NEEDS, TITLES } from "./facts.js";
import { count, duration, element, money, setText, short, spent } from "./format.js";
import { legendOf, overTime, per, stacked } from "./over_time.js";
import { showParts } from "./parts.js";
import { periodQuery, PERIODS, titleOf } from "./period.js";
import { whoseOf } from "./row.js";
import { stateWord, toneOf } from "./state.js";
import { ask, dropToken, follow, keepToken, setSite, spend, Unauthorized } from "./stream.js";
import { OWN_STYLE, VIEWER_STYLE } from "./styles.js";

const PAGE = "spend"; // as the manifest has it
const SITE_KEY = "openhands-otel-viewer";
const USUAL_SITE = "http://127.0.0.1:4318";
const ASK_EVERY_MS = 30_000;
const FEW = 8;
const CONVERSATIONS = 50;
const LIVES = ["running", "idle", "ended"];

export function activate(host) {
  wake(host);
  host.registerPage(PAGE, ({ container }) => {
    const page = new SpendPage(container);
    return () => page.dispose();
  });
}

// The agent server keeps the viewer, from 1.58 on, but starts nothing again by itself after it was started again.
async function wake({ agentServer, extension }) {
  try {
    const path = `/api/canvas-extensions/installed/${extension.name}/backend`;
    const { state, revision, prepared_revision: approved } = await agentServer.request({ path });
    if (["stopped", "unhealthy"].includes(state) && revision === approved) await agentServer.request({ method: "POST", path: `${path}/start`, body: { revision } });
  } catch {
    // An older server has none, and of one that cannot be started the page says that no viewer answers.
  }
}

class SpendPage {
  constructor(container) {
    this.host = element("div");
    const shadow = this.host.attachShadow({ mode: "open" });
    const { sheet, themed } = styles();
    this.themed = themed;
    shadow.adoptedStyleSheets = [sheet];
    this.view = { ...viewOf(""), stack: "model" };
    this.asking = new Asking({ ask: () => this.#ask(), show: (answers) => this.#show(...answers), failed: (error) => this.#failed(error) });
    shadow.append(this.#make());
    container.replaceChildren(this.host);
    this.#press();
    this.#paint();
    this.timers = [setInterval(() => this.#tick(), 1_000), setInterval(() => this.asking.refresh(), ASK_EVERY_MS)];
    this.#open(localStorage.getItem(SITE_KEY) ?? USUAL_SITE);
  }

  dispose() {
    this.following.abort();
    this.asking.stop();
    this.timers.forEach(clearInterval);
  }

  // --- what there is on it

  #make() {
    this.parts = {};
    const part = (name, tag, classes = "", ...children) => (this.parts[name] = element(tag, classes, ...children));
    const figure = (title, name) => element("div", "", element("dt", "", title), part(name, "dd", "", "0"), part(`${name}Note`, "dd", "sub"));
    this.chart = new Chart("Spend over time: arrow keys go through it");
    const heading = element("h1", "", "OpenHands spend");
    const pill = part("pill", "p", "pill", element("span", "dot"), part("connection", "span", "", "connecting"));
    pill.setAttribute("role", "status");
    const hero = element("section", "hero",
      element("div", "hero-money", part("period", "p", "label"), part("total", "p", "total", money(0)), part("note", "p", "note"), part("budgets", "div")),
      element("div", "over-time", this.chart.root, element("p", "caption", part("legend", "span", "legend"), part("per", "span"))),
      element("dl", "figures", figure("Burn rate / hour", "burn"), figure("Running", "running"), figure("LLM calls", "calls"), figure("Tokens in", "input"), figure("Tokens out", "output")));
    const move = element("button", "quiet-button", "Another viewer");
    move.type = "button";
    move.addEventListener("click", () => this.#askWhere("Which viewer is to be shown?"));
    const table = (name, title, ...above) => element("section", "where", element("h2", "", title), ...above, element("div", "wide", part(name, "table", "parts")));
    return element("main", "",
      element("header", "bar", heading, this.#choices("periods", "Period", PERIODS, "period"), pill),
      this.#makeForm(),
      part("error", "p", "error"),
      hero,
      part("chips", "section", "chips"),
      table("where", "Where it went", this.#choices("by", "Grouped by", Object.fromEntries(DIMENSIONS.map((each) => [each, TITLES[each] ?? each])), "by")),
      table("conversations", "Conversations"),
      element("p", "note foot", part("whole", "a", "", "The whole page"), move));
  }

  #choices(name, label, texts, key) {
    const box = element("nav", "choices");
    box.setAttribute("aria-label", label);
    for (const [value, text] of Object.entries(texts)) {
      const button = element("button", "", text);
      button.type = "button";
      button.dataset[key] = value;
      button.addEventListener("click", () => this.#choose(key, value));
      box.append(button);
    }
    this.parts[name] = box;
    return box;
  }

  // Where the viewer is, and its token: asked for where they are not known.
  #makeForm() {
    const field = (name, type, text) => {
      const input = element("input");
      Object.assign(input, { type, autocomplete: "off", spellcheck: false });
      this.parts[name] = input;
      return element("label", "", element("span", "", text), input);
    };
    const button = element("button", "", "Open");
    button.type = "submit";
    const token = field("token", "password", "Token");
    const form = element("form", "reach", (this.parts.why = element("p", "")), field("site", "text", "Viewer"), token, button);
    form.hidden = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const site = siteOf(this.parts.site.value);
      if (site === null) return setText(this.parts.why, `That is no address of a viewer: it should look like ${USUAL_SITE}`);
      // A token is for one viewer, and goes to no other.
      if (site !== this.site) dropToken();
      if (this.parts.token.value) keepToken(this.parts.token.value.trim());
      this.parts.token.value = "";
      localStorage.setItem(SITE_KEY, site);
      return this.#open(site);
    });
    this.parts.form = form;
    return form;
  }

  #askWhere(why) {
    setText(this.parts.why, why);
    if (!this.parts.form.hidden) return; // somebody may be typing
    this.parts.form.hidden = false;
    this.parts.site.value = this.site;
  }

  // --- what it follows

  #open(site) {
    this.following?.abort();
    this.following = new AbortController();
    this.site = site;
    this.known = new Conversations();
    this.totals = null;
    this.parts.form.hidden = true;
    setSite(`${site}/`);
    Object.assign(this.parts.whole, { href: `${site}/`, target: "_blank", rel: "noopener noreferrer" });
    this.parts.whole.title = site;
    this.asking.stop();
    const { signal } = this.following;
    const heard = (update) => signal.aborted || this.#update(update);
    follow(heard, (state) => signal.aborted || this.#state(state), signal);
  }

  #state(state) {
    this.state = state;
    this.#tick();
    if (state === "live") this.asking.change();
    if (state === "live") this.parts.form.hidden = true;
    if (state === "locked") this.#askWhere("This viewer asks for a token. It stays in this tab, until that is closed.");
    if (state === "lost") this.#explain();
  }

  // Nobody answers, or the viewer does not let this page read what it answers: a browser tells neither from the other.
  async #explain() {
    const { site } = this;
    let why = "";
    try {
      await ask("api/v1/totals");
    } catch (error) {
      why = error instanceof TypeError ? `No answer from ${site}. Start 'openhands-otel view --origins ${location.origin}' there, or name another.` : error.message;
    }
    if (site === this.site && why && this.state === "lost") this.#askWhere(why);
  }

  #update(update) {
    const now = this.#now();
    if (update.type === "snapshot") {
      this.offset = update.state.server_unix_nano / 1e9 - Date.now() / 1000;
      this.known.reset(update.state.conversations, this.#now());
      this.totals = update.state.totals;
    } else if (update.type === "conversation") {
      this.known.put(update.conversation, now);
    } else if (update.type === "changes") {
      for (const changes of update.conversations) this.known.change(changes, now);
    } else if (update.type === "removed") {
      this.known.remove(update.conversation_id);
    } else if (update.type === "totals") {
      const moved = update.totals.accumulated_cost !== this.totals?.accumulated_cost || update.totals.llm_calls !== this.totals.llm_calls;
      this.totals = update.totals;
      if (moved) this.asking.refresh();
    }
    this.#tick();
  }

  #now() {
    return Date.now() / 1000 + (this.offset ?? 0);
  }

  #choose(key, value) {
    this.view[key] = value;
    this.#press();
    this.asking.change();
  }

  #press() {
    for (const [name, key] of [["periods", "period"], ["by", "by"]]) for (const button of this.parts[name].children) button.setAttribute("aria-pressed", String(button.dataset[key] === this.view[key]));
  }

  async #ask() {
    const view = { ...this.view };
    const asked = periodQuery(view, this.#now());
    const answers = await Promise.all([spend({ ...asked, by: view.by, top: FEW }), spend({ ...asked, by: "conversation", top: CONVERSATIONS }), overTime(view, asked, this.#now()), budgets()]);
    return [view, ...answers];
  }

  // That nobody answers, or not without a token, is said by the stream.
  #failed(error) {
    if (!(error instanceof Unauthorized || error instanceof TypeError)) setText(this.parts.error, error.message);
  }

  // --- what it shows

  #show(view, where, conversations, over, limits) {
    const { parts } = this;
    const { total } = where;
    const usage = total.accumulated_token_usage;
    setText(parts.error, "");
    setText(parts.period, `${titleOf(view)} (${where.timezone})`);
    setText(parts.total, spent(total.accumulated_cost, total.unpriced_calls || total.read_cost));
    parts.total.dataset.value = String(total.accumulated_cost);
    setText(parts.note, total.read_cost > 0 ? `${money(total.read_cost)} read from OpenHands' own files: a lower bound` : "");
    setText(parts.calls, short(total.llm_calls));
    setText(parts.callsNote, total.unpriced_calls ? `${count(total.unpriced_calls)} without a price` : "");
    setText(parts.input, short(usage.prompt_tokens));
    setText(parts.output, short(usage.completion_tokens));
    showBudgets(parts.budgets, limits, where.timezone);
    const { columns, kinds, series } = stacked(view, over.columns);
    this.chart.show(columns, series);
    parts.legend.replaceChildren(...legendOf(view, kinds));
    setText(parts.per, per(over.unit));
    const named = (key, name) => ({ groups, total: sum }, table, title) =>
      showParts(table, title, groups.map((group) => ({ value: group.keys[key], group, name: group.remainder ? element("span", "rest", "all others") : name(group.keys[key]) })), sum);
    named(view.by, (value) => element("span", "name", value))(where, parts.where, TITLES[view.by] ?? view.by);
    named("conversation", (id) => this.#conversation(id))(conversations, parts.conversations, "conversation");
    this.#tick();
  }

  #conversation(id) {
    const stats = this.known.get(id)?.stats;
    const link = element("a", "name", stats?.name ?? (stats ? id.slice(0, 8) : id));
    Object.assign(link, { href: `${this.site}/${hashOf({ ...viewOf(""), conversation: id })}`, target: "_blank", rel: "noopener noreferrer", title: id });
    if (!stats) return link;
    const state = element("span", "status", element("span", "dot"), stateWord(stats));
    state.dataset.tone = toneOf(stats);
    const whose = [whoseOf(stats), stats.model_name === "unknown" ? "" : stats.model_name].filter(Boolean).join(" · ");
    return element("span", "who-what", link, element("span", "below", state, whose));
  }

  // What is so now, whatever the period.
  #tick() {
    if (document.hidden) return;
    const { parts, totals } = this;
    parts.pill.dataset.state = this.state;
    const heard = totals?.received_unix_nano ? `last data ${duration(this.#now() - totals.received_unix_nano / 1e9)} ago` : "no data yet";
    setText(parts.connection, { live: `live, ${heard}`, lost: "no connection", locked: "token needed" }[this.state] ?? "connecting");
    if (totals) {
      setText(parts.burn, money(totals.burn.per_hour));
      setText(parts.burnNote, `${money(totals.burn.per_minute)} / min`);
      setText(parts.running, count(totals.conversations_running));
      setText(parts.runningNote, `${count(totals.conversations_open)} open, ${count(totals.conversations_seen)} seen`);
    }
    this.#chips();
    this.#paint();
  }

  #chips() {
    const tally = {};
    for (const [, { stats }] of this.known.live()) {
      for (const name of [lifeOf(stats), needOf(stats, 0)].filter(Boolean)) tally[name] = (tally[name] ?? 0) + 1;
    }
    const shown = [...Object.keys(NEEDS), ...LIVES].filter((name) => tally[name] || name === "running");
    const key = shown.map((name) => `${name} ${tally[name] ?? 0}`).join(" ");
    if (this.parts.chips.dataset.key === key) return;
    this.parts.chips.dataset.key = key;
    this.parts.chips.replaceChildren(...shown.map((name) => {
      const chip = element("span", "chip", element("span", "", name), element("b", "", count(tally[name] ?? 0)));
      chip.dataset.tone = NEEDS[name] ?? (name === "running" ? "run" : "rest");
      return chip;
    }));
  }

  // Canvas' themes are its own affair, not the system's: whether one is dark shows in its ground.
  #paint() {
    const dark = isDark(getComputedStyle(this.host).backgroundColor);
    if (dark === this.dark) return;
    this.dark = dark;
    this.host.style.colorScheme = dark ? "dark" : "light";
    for (const rule of this.themed) rule.media.mediaText = dark ? "all" : "not all";
  }
}

// The viewer's own styles, made those of a shadow root, and what is different in Canvas; themed: its rules for the dark.
function styles() {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(VIEWER_STYLE + OWN_STYLE);
  const media = [...sheet.cssRules].filter((rule) => rule instanceof CSSMediaRule);
  for (const rule of [sheet, ...media].flatMap(({ cssRules }) => [...cssRules])) {
    if (rule.selectorText === ":root" || rule.selectorText === "body") rule.selectorText = ":host";
  }
  return { sheet, themed: media.filter(({ conditionText }) => conditionText.includes("prefers-color-scheme")) };
}

function isDark(color) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
}

// An address of a viewer without a slash at its end; null where it is none.
function siteOf(text) {
  try {
    const { protocol, username, password, search, hash, href } = new URL(text.trim());
    if (!["http:", "https:"].includes(protocol) || username || password || search || hash) return null;
    return href.replace(/\/+$/, "");
  } catch {
    return null;
  }
}
