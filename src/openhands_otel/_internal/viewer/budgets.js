// The viewer's budgets as bars, with when they end at the present rate.

import { go, viewOf } from "./address.js";
import { bar, element, money, percent } from "./format.js";
import { OWN, timeIn } from "./period.js";
import { ask } from "./stream.js";

const NEAR = 0.8;
const PERIOD = { day: "today" };

export async function budgets() {
  try {
    return await (await ask("api/v1/budgets")).json();
  } catch (error) {
    // Who may look at one service alone is not told what all may spend.
    if (error.status === 403) return [];
    throw error;
  }
}

// A chip for each that is nearly spent, or is: a click shows what it counts.
export function budgetChips(all, zone) {
  const view = viewOf();
  return all.filter((budget) => budget.exhausted || partOf(budget) >= NEAR).map((budget) => {
    const { name, period, where, since, exhausted } = budget;
    const counted = {
      period: PERIOD[period] ?? OWN, from: PERIOD[period] ? "" : timeIn(zone, since, true).slice(0, 10), to: "", where: where === null ? [] : [where],
    };
    const shown = Object.entries(counted).every(([key, value]) => String(view[key]) === String(value));
    // What today's counts is what is shown as usual: that is nothing to be taken back.
    const pressed = shown && !(counted.period === PERIOD.day && where === null);
    const button = element("button", "chip", element("span", "", `budget ${name}`), element("b", "", percent(partOf(budget), 1)));
    button.type = "button";
    button.dataset.tone = exhausted ? "bad" : "wait";
    button.dataset.budget = name;
    button.setAttribute("aria-pressed", String(pressed));
    button.addEventListener("click", () => {
      go(pressed ? { period: PERIOD.day, from: "", to: "", where: [] } : counted);
      document.getElementById("budgets").scrollIntoView({ block: "nearest" });
    });
    return button;
  });
}

const partOf = ({ amount, spent }) => (amount > 0 ? spent / amount : 1);

export function showBudgets(box, all, zone) {
  box.replaceChildren(...all.map((budget) => {
    const { name, amount, spent, exhausted } = budget;
    const part = partOf(budget);
    const tone = exhausted ? "bad" : part >= NEAR || budget.exhausted_unix_s !== null ? "wait" : "rest";
    const of = element("span", "", `budget ${name} ${money(amount)}`);
    const said = element("span", "said", `${money(spent)}, ${percent(part, 1)}${endOf(budget, zone)}`);
    said.dataset.tone = tone;
    return element("p", "budget", of, bar([{ bad: "context full", wait: "context much", rest: "context" }[tone], part]), said);
  }));
}

function endOf({ exhausted, exhausted_unix_s: ends, per_hour: rate, until }, zone) {
  if (exhausted) return ": spent";
  if (ends === null) return "";
  const moment = until - ends > 86_400 || ends - Date.now() / 1000 > 64_800 ? timeIn(zone, ends, true) : timeIn(zone, ends);
  return `, ends ${moment} at ${money(rate)}/h`;
}
