// The collector's event stream by fetch, because EventSource cannot send a token in a header.

import { KEEP_ALIVE_HEADER, STREAM_PATIENCE, STREAM_SILENCE_S } from "./facts.js";

const LONGEST_OPENING_MS = 10_000;
const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 5_000;
const LEAST_REST_MS = 250;
const LONGEST_REST_MS = 15_000;
const TIMES = 10;
const KEY = "openhands-otel-token";

let site = ""; // the viewer's folder: that of the page, or an address with a slash at its end

// Asks a viewer elsewhere from now on.
export const setSite = (address) => {
  site = address;
};

// In this tab's storage, until the tab is closed.
export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const dropToken = () => sessionStorage.removeItem(KEY);

export class Unauthorized extends Error {}

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(site + path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) throw new Unauthorized();
  if (!response.ok) throw Object.assign(new Error(await said(response)), { status: response.status });
  return response;
}

async function said(response) {
  try {
    return (await response.json()).message;
  } catch {
    return `${response.url}: ${response.status}`;
  }
}

// How long to wait before asking again, so that the viewer gives a tenth of its time at most to one page.
// Once slow may be chance, and the first answer always is: of two the faster counts.
export class Pace {
  constructor() {
    this.took = 0;
  }

  // Milliseconds, after an answer that took `took`.
  after(took) {
    const pause = Math.min(LONGEST_REST_MS, Math.max(LEAST_REST_MS, TIMES * Math.min(took, this.took)));
    this.took = took;
    return pause;
  }
}

// What was spent, and how long calls took: see /api/v1/spend. A list gives a parameter several times.
export const spend = (asked) => answerTo("spend", asked);
export const latency = (asked) => answerTo("latency", asked);

async function answerTo(question, asked) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) for (const each of [value].flat()) query.append(name, each);
  return (await ask(`api/v1/${question}?${query}`)).json();
}

let whole = null;
let reading = null;
let turned = false;

// Of the conversation that is looked at the whole is told, of others what changed: the stream is taken up anew for it.
export function lookAt(id) {
  if (id === null || id === whole) return;
  whole = id;
  turned = reading !== null && !reading.signal.aborted;
  reading?.abort();
}

// Calls onUpdate for each update and onState("connecting" | "live" | "lost" | "locked") as the connection goes.
// Runs until the token is refused (call again with a new one) or the signal says so.
export async function follow(onUpdate, onState, signal) {
  let lastId = null;
  let pause = FIRST_PAUSE_MS;
  onState("connecting");
  while (!signal?.aborted) {
    const abort = (reading = new AbortController());
    const stop = () => abort.abort();
    signal?.addEventListener("abort", stop);
    try {
      await readOnce(abort, lastId, (id, update) => {
        lastId = id ?? lastId;
        pause = FIRST_PAUSE_MS;
        onUpdate(update);
      }, () => onState("live"));
    } catch (error) {
      if (error instanceof Unauthorized) return onState("locked");
    }
    abort.abort();
    signal?.removeEventListener("abort", stop);
    if (signal?.aborted) return;
    if (turned) {
      turned = false;
      continue;
    }
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

async function readOnce(abort, lastId, onEvent, onOpen) {
  let silence = LONGEST_OPENING_MS;
  let timer = setTimeout(() => abort.abort(), silence);
  const headers = { accept: "text/event-stream", ...(lastId ? { "last-event-id": lastId } : {}) };
  try {
    const view = new URLSearchParams({ told: "changes", ...(whole === null ? {} : { whole }) });
    const response = await ask(`api/v1/events?${view}`, { headers, signal: abort.signal });
    onOpen();
    silence = 1000 * Math.min(STREAM_SILENCE_S, STREAM_PATIENCE * Number(response.headers.get(KEEP_ALIVE_HEADER)) || STREAM_SILENCE_S);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), silence);
      const events = (waiting + value).split("\n\n");
      waiting = events.pop();
      for (const event of events) deliver(event, onEvent);
    }
  } finally {
    clearTimeout(timer);
  }
}

function deliver(event, onEvent) {
  let id = null;
  let data = "";
  for (const line of event.split("\n")) {
    if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (data) onEvent(id, JSON.parse(data));
}
