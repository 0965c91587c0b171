// What does not work at the collector, and what it did not take: whose, why, how much. Nothing where nothing is wrong.

import { count, duration, element, printable } from "./format.js";

const SHOWN = 4;

export function showTrouble(box, receiver, now) {
  const problems = receiver?.problems ?? [];
  const refusals = receiver?.refusals ?? [];
  box.hidden = problems.length === 0 && refusals.length === 0;
  const lines = problems.map((problem) => element("p", "bad", printable(problem)));
  for (const refusal of refusals.slice(0, SHOWN)) lines.push(line(refusal, now));
  const more = refusals.length - SHOWN;
  if (more > 0) lines.push(element("p", "note", `and ${count(more)} more at /api/v1/state`));
  box.replaceChildren(...lines);
}

function line(refusal, now) {
  const points = refusal.points ? `${count(refusal.points)} ${refusal.points === 1 ? "point" : "points"}` : "";
  const requests = refusal.requests ? `${count(refusal.requests)} ${refusal.requests === 1 ? "request" : "requests"}` : "";
  const amount = [points, requests].filter(Boolean).join(" and ");
  const ago = duration(now - refusal.last_unix_nano / 1e9);
  const sender = [refusal.service, refusal.instance].filter(Boolean).join(", ") || "an unknown sender";
  const text = `Not taken from ${printable(sender)}: ${amount}, last ${ago} ago. ${printable(refusal.reason)}`;
  return element("p", "", text);
}
