// Numbers, times and elements, the same way everywhere on the page.

import { REASONS } from "./facts.js";

const grouped = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

// From this amount on, so many digits behind the point. As in money.py: one table tests both.
const DIGITS = [[100, 2], [1, 3], [0.01, 4], [0, 6]];
const rounded = (size, asOf) => size.toFixed(DIGITS.find(([least]) => asOf >= least)[1]);

// Cents say too little under a dollar, and nothing at all under a cent. Zero is zero, and nothing else looks like it.
export function money(amount) {
  if (!Number.isFinite(amount)) return "$?";
  if (amount === 0) return "$0.00";
  const sign = amount < 0 ? "-" : "";
  const size = Math.abs(amount);
  if (size >= 1e15) return `${sign}$${size.toExponential(2)}`;
  // 0.99999 is rounded to 1, which has digits of its own.
  const text = rounded(size, Number(rounded(size, size)));
  if (Number(text) === 0) return `${sign ? ">" : "<"}${sign}$0.000001`;
  const [whole, part] = text.split(".");
  return `${sign}$${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${part}`;
}

// As far as prices are known: a lower bound looks like one, and nothing does not look free.
export function spent(amount, unpricedCalls) {
  if (!unpricedCalls) return money(amount);
  return amount === 0 ? "no price" : `${money(amount)}+`;
}

export const count = (number) => grouped.format(number);
export const short = (number) => (number < 10_000 ? grouped.format(number) : compact.format(number));

// What is something is not called nothing, nor a part the whole. As in money.py: one table tests both.
export function percent(part, whole) {
  const share = (100 * part) / whole;
  const rounded = Math.round(share);
  if (rounded === 0 && share > 0) return "<1 %";
  if (rounded === 100 && Math.abs(share - 100) > 1e-7) return share < 100 ? ">99 %" : ">100 %";
  return `${rounded} %`;
}

// Facts by their format (facts.py); nothing to say is an empty text.
export const FORMATS = {
  text: (value) => value,
  count,
  money,
  seconds: (value) => (value < 100 ? `${value.toFixed(1)} s` : duration(value)),
  moment: (seconds) => new Date(seconds * 1000).toLocaleString("sv-SE"),
  difference(amount, { unreconciled_reasons: reasons }) {
    if (Math.abs(amount) <= 1e-9) return "";
    const why = reasons.map((reason) => REASONS[reason] ?? reason).join("; ");
    return `${money(Math.abs(amount))} ${amount < 0 ? "more" : "less"}${why && `: ${why}`}`;
  },
};

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

// An element with classes, properties and children; text is always text, never markup.
export function element(tag, classes = "", ...children) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  made.append(...children);
  return made;
}

export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function bar(...parts) {
  const track = element("span", "track");
  setBar(track, parts);
  return track;
}

// parts: [class, share of the whole between 0 and 1]
export function setBar(track, parts) {
  while (track.children.length < parts.length) track.append(element("i"));
  parts.forEach(([name, share], index) => {
    const piece = track.children[index];
    piece.className = name;
    piece.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  });
}

// A stretch of time for narrow places: 45s, 3m36s, 2h05m, 4d3h.
export function brief(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${Math.floor((whole % 86_400) / 3600)}h`;
}

// Controls and what turns letters around are shown, not obeyed.
export function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
}
