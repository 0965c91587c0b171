// What the page shows stands in its address, behind #: so back, reload and links work.
//   #/?period=7d&where=model%3Dgpt-5    the overview        #/c/ID?period=7d    one conversation

const USUAL = {
  period: "today", from: "", to: "", stack: "model", by: "model", where: [],
  show: "", outcome: "", search: "", sort: "", as: "table", columns: "",
};
const CONVERSATION = "/c/";

// The view that an address names; what it leaves out is as usual.
export function viewOf(hash = location.hash) {
  const [path, query = ""] = split(hash.slice(1));
  const given = new URLSearchParams(query);
  const view = { conversation: path.startsWith(CONVERSATION) ? decoded(path.slice(CONVERSATION.length)) : null };
  for (const [name, usual] of Object.entries(USUAL)) view[name] = name === "where" ? given.getAll(name) : given.get(name) ?? usual;
  return view;
}

export function hashOf(view) {
  const query = new URLSearchParams();
  for (const [name, usual] of Object.entries(USUAL)) {
    if (name === "where") for (const condition of view.where) query.append(name, condition);
    else if (view[name] !== usual) query.set(name, view[name]);
  }
  const path = view.conversation === null ? "/" : CONVERSATION + encodeURIComponent(view.conversation);
  const text = query.toString();
  return `#${path}${text && `?${text}`}`;
}

// The address of the present view with some things changed.
export const changed = (changes) => hashOf({ ...viewOf(), ...changes });

// Goes there; with `replace` the step is none to go back by (typing a word is one step, not six).
export function go(changes, replace = false) {
  const hash = changed(changes);
  if (hash === hashOf(viewOf())) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  dispatchEvent(new Event("addresschange"));
}

addEventListener("hashchange", () => dispatchEvent(new Event("addresschange")));

// A condition of a value as it is: the API takes patterns.
export const condition = (name, value) => `${name}=${value.replace(/[*?[]/g, "[$&]")}`;

// Name and value of a condition, as people read it.
export function conditionParts(text) {
  const at = text.indexOf("=");
  return [text.slice(0, at), text.slice(at + 1).replace(/\[([*?[])\]/g, "$1")];
}

// Whether a conversation with these values of facts and labels meets all conditions, as the API has it: of several
// of one name one has to hold, and none that is negated may be missed. valuesOf: by name.
export function meeting(conditions) {
  const asked = new Map();
  for (const each of conditions) {
    const at = each.indexOf("=");
    const negated = each[at - 1] === "!";
    const name = each.slice(0, negated ? at - 1 : at).trim();
    const key = `${negated}${name}`;
    if (!asked.has(key)) asked.set(key, { name, negated, patterns: [] });
    asked.get(key).patterns.push(patternOf(each.slice(at + 1).trim()));
  }
  return (valuesOf) => [...asked.values()].every(({ name, negated, patterns }) =>
    valuesOf(name).some((value) => patterns.some((pattern) => pattern.test(value)) !== negated));
}

// A pattern as of files: *, ?, [abc], [!abc].
function patternOf(text) {
  const parts = text.match(/\[!?\]?[^\]]*\]|[^]/g) ?? [];
  const source = parts.map((part) => {
    if (part === "*") return "[^]*";
    if (part === "?") return "[^]";
    if (part.length === 1) return part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
    const negated = part[1] === "!";
    const set = part.slice(negated ? 2 : 1, -1).replace(/[\\^[\]]/g, "\\$&");
    return `[${negated ? "^" : ""}${set}]`;
  });
  try {
    return new RegExp(`^${source.join("")}$`);
  } catch {
    return /^[^\s\S]/; // a range that runs backwards fits nothing
  }
}

function split(text) {
  const at = text.indexOf("?");
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
