// The conversations that the page knows: those in the viewer's memory, live, and what was asked for of the past.

import { NEED_OF_OUTCOME, NEED_OF_STATUS, STATUS, TOLD_BY } from "./facts.js";

const WINDOW_S = 300; // over which money an hour is measured
const LEAST_WINDOW_S = 30;
const UNKNOWN = "unknown";
const NONE = "none";

const isOver = (stats) => stats.closed || stats.gone || stats.ended;

// running, idle or ended: each conversation is one of them.
export function lifeOf(stats) {
  if (isOver(stats)) return "ended";
  return stats.status === STATUS.RUNNING && !stats.stale ? "running" : "idle";
}

// Why a person must look at it; nothing where none must. What is over counts if it went wrong since `since` (unix seconds).
export function needOf(stats, since) {
  const over = isOver(stats);
  if (!over && stats.stale) return "silent";
  if (over && stats.updated_unix_nano / 1e9 < since) return "";
  if (stats.gone && stats.status === STATUS.RUNNING) return "gone";
  const need = stats.outcome === null ? NEED_OF_STATUS[stats.status] : NEED_OF_OUTCOME[stats.outcome];
  return need === undefined || (over && need === "waiting") ? "" : need;
}

class Entry {
  constructor(stats, past, now) {
    this.past = past;
    this.samples = [];
    this.card = null;
    this.row = null;
    this.update(stats, now);
  }

  update(stats, now) {
    this.flash = this.stats !== undefined && this.stats.accumulated_cost !== stats.accumulated_cost;
    this.stats = stats;
    this.words = null;
    // At its begin nothing was spent, so one that is new is measured from there.
    const began = stats.started_unix_nano / 1e9;
    if (!this.samples.length && now - began < WINDOW_S) this.samples.push([began, 0]);
    this.samples.push([now, stats.accumulated_cost]);
    while (this.samples.length > 2 && this.samples[1][0] < now - WINDOW_S) this.samples.shift();
  }

  // Dollars an hour of late; null where that is not known.
  burn(now) {
    if (lifeOf(this.stats) !== "running" || !this.samples.length) return null;
    while (this.samples.length > 1 && this.samples[1][0] <= now - WINDOW_S) this.samples.shift();
    const [began, cost] = this.samples[0];
    const span = Math.min(now - began, WINDOW_S);
    return span < LEAST_WINDOW_S ? null : (3600 * (this.stats.accumulated_cost - cost)) / span;
  }

  // What a search looks through, in small letters.
  get searchText() {
    if (this.words === null) {
      const s = this.stats;
      const models = s.calls_by_model.flatMap((part) => [part.model, part.provider]);
      const labels = Object.entries(s.labels).map(([name, value]) => `${name}=${value}`);
      const words = [s.conversation_id, s.name, s.agent, s.model_name, ...models, s.service, s.activity, s.status, s.outcome, s.error_type, ...labels];
      this.words = words.join(" ").toLowerCase();
    }
    return this.words;
  }

  // What it, or part of it, has of a fact or label.
  valuesOf(name) {
    const s = this.stats;
    if (Object.hasOwn(TOLD_BY, name)) {
      const { own, parts } = TOLD_BY[name];
      const values = [...own.map((field) => s[field]), ...parts.flatMap(([list, field]) => s[list].map((part) => part[field]))];
      return values.map((each) => each || UNKNOWN);
    }
    const value = Object.hasOwn(s.labels, name) ? s.labels[name] : "";
    // The very word for having none is put in quotes, as the API does.
    return [!value ? NONE : value.replace(/^"+|"+$/g, "") === NONE ? `"${value}"` : value];
  }
}

export class Conversations {
  constructor() {
    this.entries = new Map();
    this.changed = new Set(); // ids, since these were last looked at
    this.moved = false; // whether any came, went or changed its parent since
  }

  // All that is in the viewer's memory, anew.
  reset(all, now) {
    const before = this.entries;
    this.entries = new Map([...before].filter(([, entry]) => entry.past));
    for (const stats of all) {
      const entry = before.get(stats.conversation_id);
      if (entry) this.entries.set(stats.conversation_id, entry);
      this.put(stats, now);
    }
    this.moved = true;
  }

  // Some of its fields are others now.
  change(changes, now) {
    const entry = this.entries.get(changes.conversation_id);
    if (entry) this.put({ ...entry.stats, ...changes }, now);
  }

  put(stats, now, past = false) {
    const id = stats.conversation_id;
    const entry = this.entries.get(id);
    if (!entry) {
      this.entries.set(id, new Entry(stats, past, now));
      this.moved = true;
    } else if (!past || entry.past) {
      this.moved ||= entry.past !== past || entry.stats.parent_id !== stats.parent_id;
      entry.update(stats, now);
      entry.past = past;
    }
    this.changed.add(id);
  }

  // It left the viewer's memory, and is history now.
  remove(id) {
    const entry = this.entries.get(id);
    if (entry) entry.past = true;
    this.moved = true;
  }

  get(id) {
    return this.entries.get(id);
  }

  nameOf(id) {
    const stats = this.entries.get(id)?.stats;
    return stats?.name ?? null;
  }

  // Those in memory.
  *live() {
    for (const [id, entry] of this.entries) if (!entry.past) yield [id, entry];
  }

  // Names of labels that any has.
  labelNames() {
    const names = new Set();
    for (const [, { stats }] of this.live()) for (const name of Object.keys(stats.labels)) names.add(name);
    names.delete("name");
    return [...names].sort((a, b) => (b === "user") - (a === "user") || a.localeCompare(b));
  }

  // Roots, and children by parent, of those in memory. Those that name each other as parents count as roots.
  families() {
    const children = new Map();
    const roots = [];
    for (const [id, { stats }] of this.live()) {
      const parent = this.entries.get(stats.parent_id);
      if (parent && !parent.past && !this.#above(stats.parent_id).has(id)) {
        if (!children.has(stats.parent_id)) children.set(stats.parent_id, []);
        children.get(stats.parent_id).push(id);
      } else {
        roots.push(id);
      }
    }
    return { roots, children };
  }

  #above(id) {
    const seen = new Set();
    for (let current = id; this.entries.has(current) && !seen.has(current); current = this.entries.get(current).stats.parent_id) seen.add(current);
    return seen;
  }
}
