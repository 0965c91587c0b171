// The calls of one conversation as a table: sorted by any column, and adding up to what its metrics say it cost.

import { count, element, money, setText } from "./format.js";
import { timeIn } from "./period.js";
import { costOf, poll, seconds, SpanDetails } from "./spans.js";

const STEP = 50;
const MOST = 1_000;
const LEAST = 1e-9;
const COLUMNS = [
  { name: "begun", title: "time" },
  { name: "cost", title: "$", number: true },
  { name: "role", title: "role", text: true },
  { name: "model", title: "model", text: true },
  { name: "prompt_tokens", title: "in", number: true },
  { name: "", title: "cached", number: true },
  { name: "completion_tokens", title: "out", number: true },
  { name: "seconds", title: "took", number: true },
  { name: "first_chunk_seconds", title: "first chunk", number: true },
  { name: "retries", title: "retries", number: true },
  { name: "finish_reason", title: "finish", text: true },
  { name: "error_type", title: "error", text: true },
];

// Shows them in a box until the returned function is called. zone: whose times are shown, asked anew each time.
export function showCalls(box, conversation, zone = () => undefined) {
  let sort = "-begun";
  let limit = STEP;
  const heads = COLUMNS.map((column) => head(column, (name) => {
    sort = sort === `-${name}` ? name : `-${name}`;
    polling.again();
  }));
  const body = element("tbody");
  const foot = element("tfoot");
  const note = element("p", "note");
  note.setAttribute("role", "status");
  const more = element("button", "quiet-button", "Show more");
  more.type = "button";
  more.hidden = true;
  more.addEventListener("click", () => {
    limit = Math.min(MOST, limit + 4 * STEP);
    polling.again();
  });
  const details = new SpanDetails();
  const table = element("table", "parts calls", element("thead", "", element("tr", "", ...heads)), body, foot);
  const wide = element("div", "wide", table);
  box.replaceChildren(wide, more, note, details.root);
  const path = () => `api/v1/conversations/${encodeURIComponent(conversation)}/calls?sort=${encodeURIComponent(sort)}&limit=${limit}`;
  const polling = poll(path, (answer) => {
    for (const cell of heads) {
      const { name } = cell.dataset;
      if (name) cell.setAttribute("aria-sort", sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none");
    }
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.span : null;
    body.replaceChildren(...answer.calls.map((call) => callRow(call, zone(), details)));
    if (focused) body.querySelector(`button[data-span="${focused}"]`)?.focus({ preventScroll: true });
    foot.replaceChildren(...footRows(answer));
    more.hidden = answer.calls.length >= Math.min(answer.count, MOST);
    setText(note, answer.count ? "" : "No spans of its calls are kept here.");
  }, (error) => { if (error) setText(note, error.status === 404 ? "No spans of its calls are kept here." : `Calls cannot be shown now: ${error.message}`); });
  return () => polling.stop();
}

function head({ name, title, number, text }, sortBy) {
  const cell = element("th", number ? "num" : "");
  cell.scope = "col";
  if (!name) cell.append(title);
  else {
    const button = element("button", "link", title);
    button.type = "button";
    button.addEventListener("click", () => sortBy(name, text));
    cell.dataset.name = name;
    cell.append(button);
  }
  return cell;
}

const secondOf = (unixS) => String(Math.floor(unixS) % 60).padStart(2, "0");

function callRow(call, zone, details) {
  const usage = call.tokens;
  const button = element("button", "link", `${timeIn(zone, call.begun, true)}:${secondOf(call.begun)}`);
  button.type = "button";
  button.title = call.has_content ? "what was said, and all attributes" : "all attributes";
  button.dataset.span = call.span_id;
  button.addEventListener("click", () => details.open(call.trace_id, call.span_id));
  const name = element("th", "", button);
  name.scope = "row";
  const cell = (text, classes = "") => element("td", classes, text);
  const tokens = (number) => cell(number ? count(number) : "", "num");
  const money = cell(costOf(call.cost), "num dollars");
  money.dataset.value = String(call.cost ?? 0);
  const row = element(
    "tr", "", name, money, cell(call.is_run ? "run of its agent" : call.role ?? ""), cell(call.model ?? ""),
    tokens(usage.prompt_tokens), tokens(usage.cache_read_tokens), tokens(usage.completion_tokens),
    cell(seconds(call.seconds), "num"), cell(call.first_chunk_seconds === null ? "" : seconds(call.first_chunk_seconds), "num"),
    cell(call.retries ? count(call.retries) : "", "num"), cell(call.finish_reason ?? ""),
    cell([call.error_type, call.cost_without_tokens ? "cost without tokens" : null].filter(Boolean).join(", ")),
  );
  if (call.error_type || call.cost_without_tokens) row.dataset.tone = "bad";
  return row;
}

// What is shown, what is not shown and what no span tells of add up to the total.
function footRows(answer) {
  const shown = answer.calls.reduce((sum, call) => sum + (call.cost ?? 0), 0);
  const rows = [];
  if (answer.count > answer.calls.length) rows.push(footRow(`${count(answer.count - answer.calls.length)} calls more`, answer.calls_cost - shown));
  if (Math.abs(answer.rest_cost) > LEAST) rows.push(footRow("without a span here: aged out, sampled away, or not sent yet", answer.rest_cost, "rest"));
  rows.push(footRow(`all ${count(answer.llm_calls)} responses`, answer.accumulated_cost));
  return rows;
}

function footRow(text, amount, classes = "") {
  const name = element("th", classes, text);
  name.scope = "row";
  const cell = element("td", `num ${classes}`, money(amount));
  cell.dataset.value = String(amount);
  const rest = element("td");
  rest.colSpan = COLUMNS.length - 2;
  return element("tr", "", name, cell, rest);
}
