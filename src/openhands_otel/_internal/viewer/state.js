// What a conversation's status and the end of its last run are called, and how loud they are.

import { lifeOf, needOf } from "./conversations.js";
import { LLM_ACTIVITY, NEEDS, OUTCOMES, OUTCOME_TONES, STATES, TONES } from "./facts.js";
import { brief } from "./format.js";

function statusOf({ closed, gone, ended, stale, status }) {
  return closed ? "closed" : gone ? "gone" : ended ? "ended" : stale ? "silent" : status ?? "open";
}

// How its last run ended, where its status does not say that already.
function resultOf(stats) {
  const { outcome } = stats;
  const status = statusOf(stats);
  const text = outcome === null || outcome === undefined || outcome === status ? "" : OUTCOMES[outcome] ?? outcome;
  return STATES[status] === text ? "" : text;
}

export function toneOf(stats) {
  return (resultOf(stats) && OUTCOME_TONES[stats.outcome]) || (TONES[statusOf(stats)] ?? "rest");
}

export function stateWord(stats) {
  const status = statusOf(stats);
  const result = resultOf(stats);
  return `${STATES[status] ?? status}${result && `, ${result}`}`;
}

// What the row says of now, and since when.
export function nowOf(stats, now) {
  const word = stateWord(stats);
  const busy = lifeOf(stats) === "running" && stats.activity !== null;
  const began = busy ? stats.activity_since : stats.updated_unix_nano / 1e9;
  const lasting = busy || NEEDS[needOf(stats, 0)] !== undefined;
  return { text: busy ? (stats.activity === LLM_ACTIVITY ? "model" : stats.activity) : word, title: busy ? word : "", since: lasting && began ? brief(now - began) : "" };
}
