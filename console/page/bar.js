// The bar: state, mode, lamps, clocks, and the age of this information.

import { byId, draw, h, setText } from "./dom.js";
import { age, clock, utc } from "./format.js";

export const STALE_MS = 3000;
export const SILENT_API = "The API has sent nothing for more than 3 s.";
const STATE_WORDS = { running: "RUNNING", paused: "PAUSED", killed: "KILLED" };
const MODE_WORDS = {
  live: "LIVE: REAL MONEY",
  paper: "PAPER",
  shadow: "SHADOW: reads the real venue, sends nothing",
};

/** The time of the last news, by two clocks: one of them stands still while the machine sleeps. */
export class Heard {
  constructor() {
    this.wall = this.steady = null;
    this.lateMs = 0;
  }

  /** There is news. It is `lateMs` old already. */
  now(lateMs = 0) {
    this.lateMs = lateMs;
    this.wall = Date.now() - lateMs;
    this.steady = performance.now() - lateMs;
  }

  get ms() {
    if (this.wall === null) return Infinity;
    return Math.max(Date.now() - this.wall, performance.now() - this.steady);
  }
}

/** The reason why the page may be out of date; null while it is current. */
export function doubt(view) {
  if (!view.status) return view.trouble || "Waiting for the first answer.";
  if (view.trouble) return view.trouble;
  if (view.heard.lateMs > STALE_MS - 1000 && view.heard.ms > STALE_MS) {
    return `Events from the API arrive ${age(view.heard.lateMs)} late: a proxy holds them back, or a server's clock was changed.`;
  }
  if (view.heard.ms > STALE_MS) return SILENT_API;
  return null;
}

/** Whether the API itself does not answer. A refusal counts as an answer; before the first attempt has ended, this is false. */
const isCut = (view) => !view.connected && Boolean(view.trouble) && !view.answered;

const isSilent = (view) => !view.trouble && view.heard.ms > STALE_MS;

/** Whether Temporal does not answer. Only a reading from after the coordinator fell silent counts. */
export const lacksTemporal = (view) =>
  view.silent && (view.cause === "unreachable" || (view.healthAt > view.silentSince && view.health?.temporal_connected === false));

/** Whether no worker answers: Temporal has answered since the coordinator fell silent, and a coordinator is open. */
const lacksWorker = (view) => view.silent && view.cause === "silent" && view.healthAt > view.silentSince && view.health?.temporal_connected === true;

/** If the coordinator cannot be asked: the consequences for the desk, and what to do. */
function remedy(view) {
  if (view.isResting) return "";
  if (lacksTemporal(view)) {
    return "The API cannot reach Temporal. A worker that can reach it may go on trading. Hold Kill: this page sends the kill until it arrives. Or use the terminal commands, on a machine that reaches Temporal. Until a kill is confirmed, cancel at the venue by hand. ais doctor says what is down.";
  }
  if (view.silent && view.cause === "closed") return "This API finds no open coordinator for this desk, so there is nothing that could carry out a kill. Check desk and namespace with ais doctor. Orders and positions at the venue stay: cancel and close them there by hand.";
  if (view.silent && view.cause === "paused") return "Unpause it. Until then a kill from this page is recorded, and carried out only after that: orders at the venue stay and can still fill, so cancel them there by hand.";
  if (view.silent) return "It is not known whether a worker runs: the desk may be trading. Hold Kill: once Temporal has recorded the kill, the next worker carries it out. Until then orders at the venue can still fill. ais doctor says what is missing.";
  if (isCut(view) || isSilent(view)) return "The desk may go on trading without the API. Hold Kill: this page sends the kill until the API answers. Or use the commands at the end of this page. ais doctor says what is down.";
  return "";
}

export function drawBar(view) {
  const { status } = view;
  const why = doubt(view);
  document.body.classList.toggle("stale", Boolean(why));
  drawStale(view, why);
  drawTimes(view, why);
  drawLamps(view, why);
  if (!status) {
    setText(byId("state"), "STATE NOT KNOWN");
    return;
  }
  setText(byId("desk-name"), status.desk);
  setText(byId("mode"), MODE_WORDS[status.mode] || status.mode.toUpperCase());
  setText(byId("state-was"), why ? "last known: " : "");
  // The coordinator has confirmed a kill from this page; a status that arrives now may have been read before that.
  const state = view.isKilledHere ? "killed" : status.state;
  setText(byId("state"), STATE_WORDS[state] || state.toUpperCase());
  document.body.dataset.state = why ? "unknown" : state;
  document.body.dataset.mode = status.mode;
  document.title = `${why ? "? " : ""}${state.toUpperCase()} · ${status.desk} (${status.mode})`;
  const by = status.actor ? ` by ${status.actor}` : "";
  const reason = status.reason ? `: ${status.reason}` : "";
  setText(byId("state-why"), view.isKilledHere ? "by the kill from this page" : `since ${utc(status.since)} UTC${by}${reason}`);
}

function drawStale(view, why) {
  const note = byId("stale");
  note.hidden = !why;
  if (!why) return;
  const cause = lacksTemporal(view) && view.cause !== "unreachable" ? "Temporal does not answer." : sentence(why);
  const last = view.status ? `The state was last confirmed at ${utc(view.heard.wall + view.skew)} UTC. Everything below may be older, and may have changed.` : "";
  setText(note, [view.status ? "STALE." : "", cause, last, remedy(view)].filter(Boolean).join(" "));
}

/** Whether a value that comes once a cycle, last at `at`, should have come again by now, by the server's clock. */
export const isOverdue = (view, at, cycles = 1) => Date.now() - view.ahead - Date.parse(at) > cycles * view.status.cycle_seconds * 1000 + STALE_MS;

/** Whether cycles have stopped although the coordinator answers. Any desk's worker answers for it; only the desk's own trades and cancels. */
export const isStuck = (view) => !doubt(view) && isOverdue(view, view.status.last_cycle_at ?? view.status.started_at, 3);

function drawTimes(view, why) {
  const now = Date.now() + view.skew;
  const off = view.skew ? ` (this machine is ${age(Math.abs(view.skew))} off)` : "";
  setText(byId("clock"), clock(now) + off);
  setText(byId("seen"), view.heard.wall === null ? "never" : `${age(view.heard.ms)} ago${why ? ", STALE" : ""}`);
  const at = view.status && view.status.last_cycle_at;
  const overdue = at && !why && isOverdue(view, at) ? "OVERDUE: " : "";
  setText(byId("cycle"), at ? `${overdue}${age(now - Date.parse(at))} ago, no. ${view.status.cycle_number}` : view.status ? "none yet" : "not known");
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

const LAMPS = { up: "●", down: "✕", unknown: "?", off: "○" };

function drawLamps(view, why) {
  // A reading from before the API fell silent says nothing about now.
  const isOld = isSilent(view) && performance.now() - view.healthAt > STALE_MS;
  const health = isOld ? null : view.health;
  const is = (name) => (!health ? "unknown" : health[name] ? "up" : "down");
  const lamps = [
    // Without the stream, its health may still have answered since.
    ["API", view.isResting || isOld ? "unknown" : view.connected || health ? "up" : isCut(view) ? "down" : "unknown"],
    // If the coordinator answers, Temporal does too.
    ["Temporal", !why ? "up" : lacksTemporal(view) ? "down" : view.silent && view.healthAt < view.silentSince ? "unknown" : is("temporal_connected")],
    ["worker", !why ? (isStuck(view) ? "unknown" : "up") : lacksWorker(view) ? "down" : "unknown"],
    ["database", is("db_connected")],
    // Only the coordinator knows whether the venue is read.
    ["venue", why ? "unknown" : is("aster_connected")],
    ["Redis", !health ? "unknown" : health.redis_connected ? "up" : "off"],
  ];
  const words = { up: "answers", down: "DOES NOT ANSWER", unknown: "not known", off: "not used" };
  draw(byId("lamps"), lamps, () =>
    lamps.map(([name, lamp]) => h("li", { class: `lamp ${lamp}` }, h("span", { "aria-hidden": "true" }, LAMPS[lamp]), ` ${name} `, h("small", null, words[lamp]))));
}
