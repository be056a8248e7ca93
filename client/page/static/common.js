// What every screen shares: words, forms that survive a lost connection, the strip that says whether it records.
const language = document.documentElement.lang;
const texts = JSON.parse(document.getElementById("words").textContent);

export const find = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];

export function say(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Seconds with one decimal, in the wearer's writing. */
export function seconds(value) {
  return `${new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value)} s`;
}

/** A count in the wearer's writing. */
export const count = (value) => new Intl.NumberFormat(language).format(value);

/** A text, or what was refused, with what is quoted of it: the words of another machine are in English. */
function put(place, what) {
  place.textContent = what.message ?? what;
  if (!what.quoted) return;
  const quotation = document.createElement("q");
  quotation.lang = "en";
  quotation.textContent = what.quoted;
  place.append(" ", quotation);
}

/** Says something to eyes and to screen readers, without moving the focus. */
export function tell(what) {
  put(find("#said"), what);
}

/** Shows what went wrong, or with an empty text that nothing is wrong any more. */
export function complain(what) {
  const place = find(".wrong");
  put(place, what);
  place.hidden = !place.textContent;
}

// Forms. Each has a key of its own, by which the wearable does it once, however often it is sent.

/** What the wearable refused, in the wearer's words. ``quoted``: in English; ``passes``: it may do it later, as it is. */
export class Refused extends Error {
  constructor(said, quoted = "", passes = false) {
    super(said);
    this.quoted = quoted;
    this.passes = passes;
  }
}

const KEPT = "mcoe-forms";
const AGAIN_MS = 2000;
const LATER_MS = 20000; // until what was refused for now is tried again
const ANSWER_MS = 60000; // ending a recording may take that long
const waiting = new Map();
const wearer = document.body.dataset.wearer; // undefined where the screen is nobody's
const isMine = (form) => (form.wearer ?? wearer) === wearer;
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
const kept = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]");
const keep = (forms) => localStorage.setItem(KEPT, JSON.stringify(forms));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** One attempt: the answer; Refused; or undefined when the wearable was not reached. */
async function attempt({ key, path, body }) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
  } catch {
    return undefined;
  }
  if (answer.status === 401) {
    location.assign("/pair");
    return undefined;
  }
  if (answer.status >= 500) throw new Refused(say("common.failed"));
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(content.said ?? say("fault.SettingsError"), content.quoted, content.passes === true);
  return content;
}

/** Do something now or not at all: sent again for some seconds, and never kept on the phone. */
export async function send(path, body = {}, patience = 10000) {
  const form = { key: newKey(), path, body };
  const until = performance.now() + patience;
  do {
    const answer = await attempt(form);
    if (answer !== undefined) return answer;
    showConnection(false);
    await pause(500);
  } while (performance.now() < until);
  throw new Refused(say("common.no_answer"));
}

/** A form that is kept on the phone until the wearable has answered, even across a reload. Never a secret. */
export function submit(path, body = {}) {
  const form = { key: newKey(), path, body, wearer };
  keep([...kept(), form]);
  const answered = new Promise((resolve, reject) => waiting.set(form.key, { resolve, reject }));
  deliver();
  return answered;
}

/** Send what is kept, one after the other, in one of the open tabs. */
async function deliver() {
  if (location.pathname === "/pair") return; // they wait until this phone is let in again
  await navigator.locks.request(KEPT, async () => {
    const later = new Set(); // those that the wearable does not take now, because it is locked or its disk is full
    if (wearer !== undefined) keep(kept().filter(isMine)); // those of another wearer, who has gone, are nobody's
    const following = () => kept().find((form) => isMine(form) && !later.has(form.key));
    for (let form = following(); form !== undefined; form = following()) {
      const done = waiting.get(form.key);
      try {
        const answer = await attempt(form);
        if (answer === undefined) {
          showConnection(false);
          setTimeout(deliver, AGAIN_MS);
          return;
        }
        done?.resolve(answer);
      } catch (fault) {
        if (fault.passes) {
          later.add(form.key);
          tell(`${fault.message} ${say("common.later", { count: later.size })}`);
          continue;
        }
        if (done) done.reject(fault);
        else tell(fault);
      }
      keep(kept().filter((other) => other.key !== form.key));
      waiting.delete(form.key);
      showConnection(true);
    }
    if (later.size) setTimeout(deliver, LATER_MS);
  });
}

function showConnection(reached) {
  const place = find("#connection");
  const forms = kept().length;
  const lines = reached ? [] : [say("common.lost")];
  if (!reached && forms) lines.push(say("common.waiting", { count: forms }));
  place.textContent = lines.join(" ");
  place.hidden = reached;
}

// Times in the phone's own zone.
const STYLES = {
  time: { hour: "2-digit", minute: "2-digit" },
  day: { weekday: "long", day: "numeric", month: "long", year: "numeric" },
  both: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
};
const region = navigator.languages.find((one) => one.startsWith(language)) ?? language;
for (const time of all("time[data-style]")) {
  time.textContent = new Intl.DateTimeFormat(region, STYLES[time.dataset.style]).format(new Date(time.dateTime));
}

/** Ask before something that cannot be undone; resolves to whether the wearer is sure. */
export function sure(question) {
  const dialog = find("#sure");
  find("#sure-question").textContent = question;
  dialog.showModal();
  return new Promise((resolve) => {
    find("#sure-yes").onclick = () => dialog.close("yes");
    find("#sure-no").onclick = () => dialog.close("");
    dialog.onclose = () => {
      resolve(dialog.returnValue === "yes");
      dialog.returnValue = "";
    };
  });
}

// What the wearable tells by itself.
const listeners = [];
let known;
/** Have ``listener`` called with what the wearable says of itself, now and whenever it changes. */
export function onFacts(listener) {
  listeners.push(listener);
  if (known !== undefined) listener(known); // they may have come before the screen's own script
}

let begun;
const title = document.title;
function showRecording(facts) {
  document.body.classList.toggle("recording", facts.recording !== null);
  document.title = facts.recording === null ? title : `● ${title}`;
  begun = facts.recording === null ? undefined : performance.now() - 1000 * facts.recorded_s;
  tick();
}
function tick() {
  const place = find("#recorded");
  if (!place || begun === undefined) return;
  const seconds = Math.max(0, Math.floor((performance.now() - begun) / 1000));
  place.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

let events;
/** Hear no more: what follows is the end of what this screen is about. */
export const stopListening = () => events?.close();
/** Hear what the wearable tells by itself. */
export function listen() {
  events = new EventSource("/events");
  for (const part of ["strip", "live", "model", "learning"]) {
    events.addEventListener(part, (event) => {
      const [place, told] = [document.getElementById(part), document.createElement("template")];
      told.innerHTML = event.data;
      // What stands there already stays: a screen reader would read it out again, and a tap would miss it.
      if (place && place.innerHTML.trim() !== told.innerHTML.trim()) place.replaceChildren(told.content);
      tick();
    });
  }
  events.addEventListener("facts", (event) => {
    const facts = JSON.parse(event.data);
    if (facts.stage !== "open") location.assign("/");
    showRecording(facts);
    known = facts;
    for (const listener of listeners) listener(facts);
  });
  events.onopen = () => { showConnection(true); deliver(); };
  events.onerror = () => {
    showConnection(false); // the browser tries again by itself, unless it was answered that it may not
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), AGAIN_MS);
  };
}
if ("live" in document.body.dataset) {
  listen();
  addEventListener("pagehide", stopListening);
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  setInterval(tick, 500);
}
addEventListener("online", deliver);
if (kept().length) deliver();
