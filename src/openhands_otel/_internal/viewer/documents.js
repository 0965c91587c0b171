// What people take along: Markdown and CSV, in which a stranger's text stays text.

import { printable } from "./format.js";

// One table of a document; nothing where it has no rows.
export function table(title, heads, rows) {
  if (!rows.length) return "";
  const line = (values) => `| ${values.map((value) => cell(value)).join(" | ")} |`;
  return [`## ${title}`, "", line(heads), line(heads.map(() => "---")), ...rows.map(line)].join("\n");
}

// facts: [name, text]
export function markdownOf(title, facts, tables) {
  const lines = facts.map(([name, text]) => `- ${escaped(name)}: ${escaped(String(text))}`);
  return `${[`# ${escaped(title)}`, lines.join("\n"), ...tables].filter(Boolean).join("\n\n")}\n`;
}

// A program that opens it as a sheet must take no text for a formula.
export function csvOf(heads, rows) {
  return [heads, ...rows].map((row) => row.map(field).join(",")).join("\r\n").concat("\r\n");
}

const cell = (value) => escaped(String(value));

// As report/documents.py has it: nothing in it is markup, HTML, a link or the end of a cell.
const REFERENCES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", '"': "&quot;" };
const escaped = (text) => printable(text)
  .replace(/[\\`*_{}[\]()#+!|~^$]/g, "\\$&")
  .replace(/[&<>@"]/g, (mark) => REFERENCES[mark])
  .replace(/(?<=\w):(?=\/\/)|(?<=www)\./gi, (mark) => `&#${mark.charCodeAt(0)};`);

function field(value) {
  if (typeof value === "number") return String(value);
  const clean = printable(value);
  const text = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(clean) ? `'${clean}` : clean;
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
