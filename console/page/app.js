// Puts the page together: signing in, the stream of events, and drawing.

import { hearWarnings, makeRoom, request } from "./api.js";
import { doubt, drawBar, Heard } from "./bar.js";
import { Charts } from "./charts.js";
import { ServerClock } from "./clock.js";
import { Commands } from "./commands.js";
import { byId, setText } from "./dom.js";
import { guard } from "./faults.js";
import { byHand, Kill } from "./kill.js";
import { Log } from "./log.js";
import { drawPanels } from "./panels.js";
import { currentKey, forget, isIdle, isSendable, keep, lockAfter, noteInput, takeOver } from "./session.js";
import { Stream } from "./stream.js";
import { giveWay } from "./way.js";

const TICK_MS = 500;
const HEALTH_MS = 3000;
// The API's own probes take two seconds at most.
const HEALTH_SECONDS = 2.5;
// A difference of a few seconds does not mean that a clock is wrong: the answer took time to arrive.
const SKEW_MS = 5000;
const HIDDEN = "This tab was in the background and read nothing.";
const YIELDING = "Another tab of this browser is sending a kill: this tab has closed its connection to make room for it.";

const nothingKnown = () => ({ status: null, trouble: null, silent: false, cause: null, answered: false, heard: new Heard(), connected: false, isResting: false, health: null, healthAt: -Infinity, silentSince: null, terms: null, skew: 0, ahead: 0, role: null });
const view = nothingKnown();
const blank = byId("desk").cloneNode(true);
const time = new ServerClock();
let kill, commands, log, charts;
let stream = null;
let askedHealthAt = -Infinity;
let lockWanted = null;

const on = {
  opened(headers) {
    // Until the coordinator has answered once, the only trouble is that it has not answered yet.
    Object.assign(view, { connected: true, isResting: false, trouble: view.status ? view.trouble : null });
    const terms = {
      workflow: headers.get("X-AIS-Workflow"), address: headers.get("X-AIS-Temporal-Address"), namespace: headers.get("X-AIS-Temporal-Namespace"),
    };
    if (Object.values(terms).every(Boolean)) view.terms = terms;
    lockAfter(Number(headers.get("X-AIS-Lock-Minutes")));
    Object.assign(view, { role: headers.get("X-AIS-Role") });
    tellOfKey(headers.get("X-AIS-Warning"));
    askHealthSoon();
    kill.drawLabel();
    byId("signin-by-hand").replaceChildren();
    log.news();
    guard("the charts", () => charts.again());
    render();
  },
  event(name, text, readAt) {
    let data;
    if (!guard(`reading what the API sent (${name})`, () => { data = JSON.parse(text); })) {
      // A later comment `unchanged` must not confirm the status from before this unreadable event.
      if (name !== "log") view.trouble = "This page cannot read what the API sent.";
    } else if (name === "status") take(data, readAt);
    else if (name === "unavailable") silent(String(data.detail), data.cause);
    else if (name === "log") return log.news();
    render();
  },
  confirmed(readAt) {
    time.note(readAt);
    // While the coordinator does not answer, `unchanged` means that it still does not answer.
    if (view.status && !view.trouble) view.heard.now(time.lateness(readAt));
  },
  lost(why, answered = false) {
    Object.assign(view, { connected: false, answered, trouble: why, silent: false, silentSince: null, health: null, isResting: why === HIDDEN || why === YIELDING });
    render();
  },
  refused(why) {
    lockWanted = `The API refused this key: ${why}`;
    Object.assign(view, { connected: false, trouble: lockWanted });
    tick();
  },
};

// An exception in one of these is a fault of the page, and no reason to reconnect the stream.
for (const [name, work] of Object.entries(on)) on[name] = (...facts) => guard(`the page (${name})`, () => work(...facts));

/** Notes that the coordinator does not answer. An earlier reading of Temporal's health does not explain why, so asks again. */
function silent(trouble, cause) {
  if (!view.silent) askHealthSoon();
  Object.assign(view, { trouble, cause, silent: true, silentSince: view.silentSince ?? performance.now() });
}

function take(status, readAt) {
  // Another desk answers at this address now: nothing of the earlier one may stay, least of all what became of its kill.
  if (view.status && view.status.desk !== status.desk && !kill.isBusy) return open();
  time.note(readAt);
  if (view.silent) askHealthSoon();
  Object.assign(view, { status, trouble: null, silent: false, silentSince: null });
  view.heard.now(time.lateness(readAt));
  guard("the kill's news", () => kill.see(status));
  guard("the commands", () => commands.see());
  guard("the charts", () => charts.see(status));
}

function render() {
  if (!stream) return;
  view.ahead = time.ahead;
  view.skew = Math.abs(time.ahead) > SKEW_MS ? -time.ahead : 0;
  view.isKilledHere = kill.isAhead;
  if (!guard("the bar", () => drawBar(view))) disown();
  drawPanels(view);
  guard("the kill", () => kill.tick());
}

/** Shows that the key expires soon; hides the note if there is no warning. */
function tellOfKey(warning) {
  const note = byId("key-note");
  note.hidden = !warning;
  setText(note, warning ? `This page's ${warning}` : "");
}

/** The bar could not be drawn, so its contents are of an unknown age: marks the state as not known. */
function disown() {
  document.body.classList.add("stale");
  document.body.dataset.state = "unknown";
  setText(byId("state"), "STATE NOT KNOWN");
  setText(byId("state-was"), "");
  document.title = "? AIS console";
}

/** Resets the desk's part of the page to how it was loaded, so that nothing of an earlier desk stays. */
function build() {
  kill?.stop();
  log?.clear();
  charts?.stop();
  byId("desk").replaceWith(blank.cloneNode(true));
  Object.assign(view, nothingKnown());
  kill = new Kill(view, () => stream?.letGo());
  commands = new Commands(view);
  log = new Log();
  charts = new Charts(view);
  byId("lock").addEventListener("click", () => { lockWanted = "Locked."; tick(); });
}

function open() {
  if (!isSendable(currentKey())) return lock("This is not a key: a key has no space and no non-ASCII character, such as an invisible one. Copy it again, from its first character to its last.");
  stream?.stop();
  lockWanted = null;
  build();
  byId("signin").hidden = true;
  byId("desk").hidden = false;
  noteInput();
  stream = new Stream(on);
  if (document.hidden) stream.rest(HIDDEN);
  render();
}

function lock(why = "") {
  const said = kill && kill.said;
  // If the API is silent or a kill is not confirmed, the lines for a terminal are the only way left. They hold no secret.
  const left = view.terms && (said || doubt(view)) ? byHand(view.terms, "") : [];
  stream?.stop();
  stream = null;
  forget();
  build();
  byId("signin").hidden = false;
  delete document.body.dataset.mode;
  delete document.body.dataset.state;
  document.body.classList.remove("stale", "old-reading");
  document.title = "AIS console";
  setText(byId("signin-problem"), [why, said].filter(Boolean).join(" "));
  if (left.length) byId("signin-by-hand").replaceChildren(...left);
  byId("key").focus();
}

const askHealthSoon = () => { askedHealthAt = -Infinity; };

async function readHealth() {
  const askedAt = (askedHealthAt = performance.now());
  try {
    const { headers, body } = await request("GET", "/health", { seconds: HEALTH_SECONDS });
    // Not its `Date`: many a proxy puts its own there, and one whose clock is ahead would make every event look late for ever.
    time.note(Date.parse(headers.get("X-AIS-Time")));
    // Two requests may be under way: ignore the answer of the older one once the newer one has answered.
    if (askedAt > view.healthAt) Object.assign(view, { health: "db_connected" in body ? body : null, healthAt: askedAt });
  } catch {
    if (askedAt > view.healthAt) view.health = null;
  }
}

function tick() {
  if (!stream) return;
  if (isIdle()) lockWanted ??= "Locked after too long without input.";
  byId("lock").disabled = kill.isBusy;
  if (lockWanted !== null && !kill.isBusy) {
    const why = lockWanted;
    lockWanted = null;
    return lock(why);
  }
  if (!view.isResting && performance.now() - askedHealthAt > HEALTH_MS) readHealth();
  if (view.connected) log.again();
  render();
}

byId("signin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value.trim());
  byId("key").value = "";
  setText(byId("signin-problem"), "");
  open();
});
addEventListener("hashchange", () => takeOver() && !kill.isBusy && open());
addEventListener("beforeunload", (event) => {
  if (!kill?.isBusy) return;
  event.preventDefault();
  event.returnValue = "";
});
document.addEventListener("visibilitychange", () => {
  kill?.release();
  if (document.hidden) stream?.rest(HIDDEN);
  else stream?.resume(HIDDEN);
});
giveWay(() => { makeRoom(); stream?.rest(YIELDING); }, () => stream?.resume(YIELDING));

hearWarnings((warning) => warning && guard("the key's end", () => tellOfKey(warning)));
takeOver();
setInterval(tick, TICK_MS);
if (currentKey()) open();
else lock();
