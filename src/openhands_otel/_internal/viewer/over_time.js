// Spend over time: what a chart of a period is asked for, and what it shows.

import { element } from "./format.js";
import { longName, shortName, stretches, timeIn, unitOf } from "./period.js";
import { spend } from "./stream.js";

const OTHERS = "others";
const SERIES = 7;
const WITHIN = 30; // groups in one column that are told apart
const QUARTER_S = 900;

// What stands beside a chart: how long a column is, and what its colours are.
export const legendOf = (view, kinds) => (view.stack ? kinds.map(({ name, tint }) => element("span", "", element("i", `swatch tint-${tint}`), name)) : []);
export const per = (unit) => `per ${unit === "quarter" ? "quarter of an hour" : unit}`;

// How long a column is, and each column with its groups; asked: parameters of /api/v1/spend for the period.
export async function overTime(view, asked, now) {
  if (view.period === "hour") return quarters(view, asked, now);
  const months = view.period === "all" ? (await spend({ ...asked, by: "month" })).groups.length : 0;
  const unit = unitOf(view, months);
  const answer = await spend({ ...asked, by: [unit, view.stack].filter(Boolean).join(","), top: WITHIN });
  const names = stretches(unit, [...new Set(answer.groups.map(({ keys }) => keys[unit]).filter(Boolean))], answer.since, answer.until, answer.timezone, now);
  const places = new Map(names.map((name) => [name, []]));
  for (const group of answer.groups) places.get(group.keys[unit])?.push(group);
  return { unit, columns: names.map((name) => ({ name: shortName(unit, name), title: longName(unit, name), groups: places.get(name) })) };
}

// The API's shortest stretch is an hour; the archive's a quarter of it.
async function quarters(view, asked, now) {
  const begins = [];
  for (let begin = asked.since; begin <= now; begin += QUARTER_S) begins.push(begin);
  const answers = await Promise.all(begins.map((since) =>
    spend({ ...asked, since, until: since + QUARTER_S, ...(view.stack && { by: view.stack, top: WITHIN }) })));
  return {
    unit: "quarter",
    columns: answers.map((answer, index) => {
      const name = timeIn(answer.timezone, begins[index]);
      const end = timeIn(answer.timezone, begins[index] + QUARTER_S);
      return { name, title: `${name} to ${end}`, groups: view.stack ? answer.groups : [answer.total] };
    }),
  };
}

// The columns as a Chart takes them, its series, and those of them that there is money for: the dearest apart, the rest together.
export function stacked(view, columns) {
  const name = (group) => (!view.stack ? "" : group.remainder ? OTHERS : group.keys[view.stack]);
  const sums = new Map();
  for (const { groups } of columns) for (const group of groups) sums.set(name(group), (sums.get(name(group)) ?? 0) + group.accumulated_cost);
  sums.delete(OTHERS);
  const dearest = [...sums].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).slice(0, SERIES).map(([each]) => each);
  const places = new Map(dearest.map((each, index) => [each, index]));
  const series = dearest.map((each, index) => ({ name: each || "spend", tint: index }));
  let anyOthers = false;
  const drawn = columns.map(({ groups, ...column }) => {
    const values = new Array(series.length + 1).fill(0);
    for (const group of groups) values[places.get(name(group)) ?? series.length] += group.accumulated_cost;
    anyOthers ||= values[series.length] > 0;
    return { ...column, parts: values };
  });
  series.push({ name: OTHERS, tint: SERIES });
  return { columns: drawn, series, kinds: series.slice(0, anyOthers ? undefined : -1) };
}
