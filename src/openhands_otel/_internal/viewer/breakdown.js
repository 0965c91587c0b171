// Where the money went: rows that add up to the period's total, whatever they are grouped by.

import { changed, condition, conditionParts, go } from "./address.js";
import { DIMENSIONS, OUTCOMES, TITLES } from "./facts.js";
import { element, setText } from "./format.js";
import { showParts } from "./parts.js";
import { spend } from "./stream.js";

const OUTCOME = "outcome";
const CONVERSATION = "conversation";
const NO_CONVERSATION = "no conversation";
const FEW = 8;
const MANY = 200;
const RUNS = 2_000; // told apart when runs are counted by how they ended
const titleOf = (name) => (name === OUTCOME ? "how runs ended" : TITLES[name] ?? name);

export class Breakdown {
  // nameOf: a conversation's name by its id
  constructor(box, nameOf) {
    this.nameOf = nameOf;
    this.choices = element("div", "choices");
    this.choices.setAttribute("role", "group");
    this.choices.setAttribute("aria-label", "Grouped by");
    this.table = element("table", "parts");
    this.more = element("button", "quiet-button");
    this.more.type = "button";
    this.more.addEventListener("click", () => {
      this.all = !this.all;
      this.changed();
    });
    this.all = false;
    this.changed = () => dispatchEvent(new Event("addresschange"));
    box.append(this.choices, element("div", "wide", this.table), this.more);
  }

  async ask(view, asked) {
    if (view.by === OUTCOME) return byOutcome(await spend({ ...asked, by: "run", top: RUNS }));
    return spend({ ...asked, by: view.by, top: this.all ? MANY : FEW });
  }

  // labels: names that conversations have
  choose(view, labels) {
    const names = [...DIMENSIONS, ...labels, CONVERSATION, OUTCOME];
    if (!names.includes(view.by)) names.push(view.by);
    const key = names.join("\n");
    if (this.choices.dataset.names !== key) {
      this.choices.dataset.names = key;
      this.choices.replaceChildren(...names.map((name) => {
        const button = element("button", "", titleOf(name));
        button.type = "button";
        button.dataset.by = name;
        button.addEventListener("click", () => {
          this.all = false;
          go({ by: name });
        });
        return button;
      }));
    }
    for (const button of this.choices.children) button.setAttribute("aria-pressed", String(button.dataset.by === view.by));
  }

  show(view, { groups, total }) {
    const rows = groups.map((group) => {
      const value = group.keys[view.by];
      return { value, group, name: group.remainder ? element("span", "rest", "all others") : this.#name(view, value) };
    });
    showParts(this.table, titleOf(view.by), rows, total);
    const hasRest = groups.some(({ remainder }) => remainder);
    this.more.hidden = view.by === OUTCOME || !(hasRest || this.all);
    setText(this.more, this.all ? "Show fewer" : "Show more");
  }

  #name(view, value) {
    if (view.by === CONVERSATION && value !== NO_CONVERSATION) {
      const link = element("a", "name", this.nameOf(value) ?? value);
      link.href = changed({ conversation: value });
      link.title = value;
      return link;
    }
    if (view.by === OUTCOME && !(value in OUTCOMES)) return element("span", "name", value);
    const button = element("button", "name link", view.by === OUTCOME ? OUTCOMES[value] : value);
    button.type = "button";
    button.title = `Only ${value}`;
    button.addEventListener("click", () => {
      if (view.by === OUTCOME) go({ outcome: value });
      else go({ where: [...new Set([...view.where.filter((each) => conditionParts(each)[0] !== view.by), condition(view.by, value)])] });
    });
    return button;
  }
}

// Runs by how they ended: what no run has told, or what goes on, is a row too.
function byOutcome(answer) {
  const sums = new Map();
  for (const group of answer.groups) {
    const name = group.remainder ? "earlier runs" : group.outcome ?? (group.keys.run === "no run" ? "outside of any run" : "under way, or never told");
    const sum = sums.get(name);
    if (sum) add(sum, group);
    else sums.set(name, { ...group, accumulated_token_usage: { ...group.accumulated_token_usage }, keys: { [OUTCOME]: name }, remainder: false });
  }
  return { ...answer, groups: [...sums.values()].sort((a, b) => b.accumulated_cost - a.accumulated_cost) };
}

function add(sum, group) {
  for (const name of ["accumulated_cost", "read_cost", "llm_calls", "unpriced_calls", "llm_seconds"]) sum[name] += group[name];
  for (const name of Object.keys(sum.accumulated_token_usage)) sum.accumulated_token_usage[name] += group.accumulated_token_usage[name];
}
