// A table of what took which part of a total: money with a bar, share, calls, tokens.

import { bar, count, element, percent, short, spent } from "./format.js";

// rows: [{ name: node, value: text, group }]; group and total as the API has them
export function showParts(table, title, rows, total) {
  const timed = total.llm_seconds > 0;
  const titles = ["$", "share", "calls", "in", "cached", "out", ...(timed ? ["s a call"] : [])];
  const heads = titles.map((text, index) => scoped("col", element("th", index > 1 ? "num wide-only" : "num", text)));
  const head = element("tr", "", scoped("col", element("th", "", title)), element("td", "bar-cell"), ...heads);
  const lines = rows.map(({ name, value, group }) => {
    const row = line(name, group, total, timed);
    row.dataset.name = group.remainder ? "" : value;
    return row;
  });
  const focused = table.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.name : undefined;
  table.replaceChildren(
    element("caption", "hidden", `Spend by ${title}`),
    element("thead", "", head),
    element("tbody", "", ...lines),
    element("tfoot", "", line("total", total, total, timed)),
  );
  // Drawn anew while somebody is there with the keyboard: they stay where they are.
  if (focused !== undefined) lines.find((row) => row.dataset.name === focused)?.querySelector("button, a")?.focus({ preventScroll: true });
}

function line(name, group, total, timed) {
  const { accumulated_cost: cost, accumulated_token_usage: usage, llm_calls: calls } = group;
  const part = total.accumulated_cost > 0 ? cost / total.accumulated_cost : 0;
  const money = element("td", "num dollars", spent(cost, group.unpriced_calls || group.read_cost));
  money.dataset.value = String(cost);
  if (group.read_cost > 0) {
    money.title = "A lower bound: read from OpenHands' own files";
    money.append(element("span", "read", "from disk"));
  }
  const input = usage.prompt_tokens;
  const texts = [count(calls), short(input), input ? percent(usage.cache_read_tokens, input) : "", short(usage.completion_tokens)];
  if (timed) texts.push(calls && group.llm_seconds ? (group.llm_seconds / calls).toFixed(1) : "");
  return element(
    "tr", "",
    scoped("row", element("th", "", name)),
    element("td", "bar-cell", ...(group === total ? [] : [bar(["input", part])])),
    money,
    element("td", "num", part ? percent(part, 1) : ""),
    ...texts.map((text) => element("td", "num wide-only", text)),
  );
}

export function scoped(scope, cell) {
  cell.scope = scope;
  return cell;
}
