// Periods: what they are called, how the API is asked for them, and the stretches of time that a chart of one has.

export const PERIODS = { hour: "hour", today: "today", yesterday: "yesterday", "7d": "7 days", "30d": "30 days", all: "all" };
export const OWN = "own";

const QUARTER_S = 900;
const HOUR_S = 3_600;
const DAY_S = 86_400;
const MOST_DAYS = 100;
const BEFORE = "before ";
const LONGER = { "7d": "14d", "30d": "60d", yesterday: "3d" };
const TITLES = { hour: "last hour", today: "today", yesterday: "yesterday", "7d": "last 7 days", "30d": "last 30 days", all: "all that is known" };
const EARLIER = {
  hour: "the hour before", today: "yesterday by now", yesterday: "the day before", "7d": "the 7 days before, by now",
  "30d": "the 30 days before, by now", [OWN]: "as long before",
};

export const isRunning = (view) => view.period !== "yesterday" && view.period !== OWN;
export const titleOf = (view) => TITLES[view.period] ?? `${view.from} to ${view.to}`;
export const earlierTitle = (view) => EARLIER[view.period] ?? "";

// Parameters of /api/v1/spend.
export function periodQuery(view, now) {
  const { period } = view;
  if (period === "hour") return { since: quarter(now - HOUR_S) };
  if (period === "today" || period === "yesterday") return { since: period, until: period };
  if (period === "all") return {};
  if (period === OWN) return { ...(view.from && { since: view.from }), ...(view.to && { until: view.to }) };
  return { last: period, until: "today" };
}

// Parameters for the begin of the period before, where that takes asking; else its begin itself; null where there is none.
export function beginBefore(view, since, until) {
  if (since === null) return null;
  if (view.period === "today") return { since: "yesterday", until: "yesterday" };
  if (LONGER[view.period]) return { last: LONGER[view.period] };
  if (view.period === "hour") return since - HOUR_S;
  return until === null ? null : since - (until - since);
}

export const quarter = (unixS) => Math.floor(unixS / QUARTER_S) * QUARTER_S;

// How long a column of the chart is: "quarter", or what the API groups by.
export function unitOf(view, months) {
  if (view.period === "hour") return "quarter";
  if (view.period === "today" || view.period === "yesterday") return "hour";
  if (view.period === "7d" || view.period === "30d") return "day";
  if (view.period === "all") return months > 4 ? "month" : "day";
  const days = (Date.parse(view.to || new Date().toISOString().slice(0, 10)) - Date.parse(view.from || "2000-01-01")) / 1000 / DAY_S + 1;
  return days <= 2 ? "hour" : days <= MOST_DAYS ? "day" : "month";
}

// Each stretch of time of a period in order, those in which nothing was spent too: [name, title].
//   found: names that have spend; since, until: unix seconds or null; zone: IANA name, or one that only the viewer knows
export function stretches(unit, found, since, until, zone, now) {
  const undated = found.filter((name) => name.startsWith(BEFORE));
  const dated = found.filter((name) => !name.startsWith(BEFORE)).sort();
  const end = Math.min(until ?? now, Math.max(now, since ?? 0));
  const names = unit === "hour" ? hours(dated, since, end, zone) : days(unit, dated, since, end, zone);
  return [...undated, ...names];
}

function hours(dated, since, end, zone) {
  const clock = clockOf(zone);
  const names = [];
  for (let moment = since; clock && moment < end; moment += HOUR_S) {
    const [name, offset] = clock(moment);
    // An hour that the clock shows twice carries its offset.
    const twice = dated.find((each) => each === name + offset);
    names.push(twice ?? name);
  }
  return together(names, dated);
}

function days(unit, dated, since, end, zone) {
  const clock = clockOf(zone);
  const length = unit === "month" ? 7 : 10;
  const first = since !== null && clock ? clock(since)[0].slice(0, length) : dated[0];
  const last = clock ? clock(end - 1)[0].slice(0, length) : dated.at(-1);
  const names = [];
  const place = first ? new Date(`${first.padEnd(10, "-01")}T00:00:00Z`) : null;
  while (place && names.length < 1_000) {
    const name = place.toISOString().slice(0, length);
    if (name > (last ?? first)) break;
    names.push(name);
    if (unit === "month") place.setUTCMonth(place.getUTCMonth() + 1);
    else place.setUTCDate(place.getUTCDate() + 1);
  }
  return together(names, dated);
}

const together = (names, found) => [...new Set([...names, ...found])].sort();

// A moment as [YYYY-MM-DD HH:00, offset] in a zone; null where this browser does not know the zone.
function clockOf(zone) {
  try {
    const form = new Intl.DateTimeFormat("sv-SE", {
      timeZone: zone === "local" ? undefined : zone, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", hourCycle: "h23",
      timeZoneName: "longOffset",
    });
    return (unixS) => {
      const part = Object.fromEntries(form.formatToParts(unixS * 1000).map(({ type, value }) => [type, value]));
      const offset = part.timeZoneName.replace(/^(GMT|UTC)/, "").replace("\u2212", "-") || "+00:00";
      return [`${part.year}-${part.month}-${part.day} ${part.hour}:00`, offset];
    };
  } catch {
    return null;
  }
}

// The time of day, or the moment, in the viewer's zone.
export function timeIn(zone, unixS, withDate = false) {
  const form = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(withDate && { year: "numeric", month: "2-digit", day: "2-digit" }) };
  try {
    return new Intl.DateTimeFormat("sv-SE", { ...form, timeZone: zone === "local" ? undefined : zone }).format(unixS * 1000);
  } catch {
    return new Intl.DateTimeFormat("sv-SE", form).format(unixS * 1000);
  }
}

// What stands under a column: as short as its neighbours allow.
export function shortName(unit, name) {
  if (unit === "hour") return name.slice(11, 16);
  if (unit === "day") return name.startsWith(BEFORE) ? "before" : `${Number(name.slice(8))} ${MONTHS[Number(name.slice(5, 7)) - 1] ?? ""}`;
  if (unit === "month") return name.startsWith(BEFORE) ? "before" : `${MONTHS[Number(name.slice(5, 7)) - 1]} ${name.slice(0, 4)}`;
  return name;
}
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
export function longName(unit, name) {
  if (unit !== "day" || name.startsWith(BEFORE)) return name;
  return `${WEEKDAYS[new Date(`${name}T00:00:00Z`).getUTCDay()]} ${name}`;
}
