// The kill: held for a second, sent at once, and sent again under the same id for as long as the connection fails. The page
// says only what is known about it.

import { isForeign, isPassing, makeRoom, problem, request, rowsOf } from "./api.js";
import { SILENT_API, doubt, lacksTemporal } from "./bar.js";
import { byId, copyLine, draw, h, setText } from "./dom.js";
import { guard } from "./faults.js";
import { clock } from "./format.js";
import { drawKillProgress, MOST_INSTRUCTIONS } from "./panels.js";
import { currentKey, may } from "./session.js";
import { announce } from "./way.js";

const HOLD_MS = 1000;
const AGAIN_MS = 1000;
const ATTEMPT_SECONDS = 8;
// After waiting this long, the person is shown the other ways to kill.
const SLOW_MS = 1500;
// A status that arrives this long after a kill was confirmed was certainly read after the kill.
const AFTER_MS = 5000;

export function newId() {
  // Over plain HTTP from another machine browsers have no `crypto.randomUUID`.
  return `console-${[...crypto.getRandomValues(new Uint8Array(16))].map((it) => it.toString(16).padStart(2, "0")).join("")}`;
}

// Too slow, too many, or before the API has read its keys: nothing was carried out, and the next attempt may succeed.
const mayPass = (answer) => answer.status === 408 || answer.status === 429 || isPassing(answer);
// The API refuses an unknown key, or a key for another desk, before it reads the command: such a refusal has no command id, but
// names the scheme of keys (WWW-Authenticate).
const isOfKey = ({ status, headers }) => status === 401 || (status === 403 && (headers.get("WWW-Authenticate") || "").includes("insufficient_scope"));

/** Whether the API says that nothing was sent. After any other failure, also a proxy's, it may have been sent. */
export const isUnrecorded = ({ status, body }) => status === 503 && /^not recorded|; nothing was sent\. /.test(String(body?.detail));

/** Whether the API says that it sent the kill and got no answer. */
const isPerhaps = ({ status, body }) => status === 503 && String(body?.detail).startsWith("it is not known");

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Kill {
  /** `letGo` drops this tab's own stream for a moment. */
  constructor(view, letGo) {
    this.view = view;
    this.letGo = letGo;
    this.order = null;
    this.instructions = [];
    this.readFor = "";
    this.readAt = -Infinity;
    this.heldSince = null;
    this.confirmedAt = null;
    this.button = byId("kill-button");
    this.listen();
  }

  listen() {
    const { button } = this;
    button.addEventListener("pointerdown", (event) => event.button === 0 && this.hold(event));
    for (const kind of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(kind, (event) => this.release(event));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      if (!event.repeat) this.hold(event);
    });
    button.addEventListener("keyup", (event) => this.release(event));
    byId("kill-reason").addEventListener("keydown", (event) => {
      if (event.key === "Enter") button.focus();
    });
  }

  /** Whether the key's role may kill. If not, the button says so; the API would refuse the kill. */
  get isAllowed() {
    return may(this.view.role, "operator");
  }

  hold(event) {
    clearTimeout(this.timer);
    if (!this.isAllowed) return;
    this.heldSince = event.timeStamp;
    this.timer = setTimeout(() => {
      this.heldSince = null;
      this.fire();
      this.release();
    }, HOLD_MS);
    this.button.classList.add("holding");
    guard("the kill's button", () => setText(byId("kill-label"), "Hold…"));
  }

  release(event) {
    clearTimeout(this.timer);
    // A busy page runs its timer late, but an event's own time is right: if the button was held long enough, send the kill.
    if (event && this.heldSince !== null && event.timeStamp - this.heldSince >= HOLD_MS) this.fire();
    this.heldSince = null;
    this.button.classList.remove("holding");
    guard("the kill's button", () => this.drawLabel());
  }

  get isBusy() {
    return Boolean(this.order && !this.order.settled);
  }

  /** Whether the kill is confirmed, but no status shows it yet: a status that arrives now may have been read before it. */
  get isAhead() {
    return this.confirmedAt !== null;
  }

  /** The text about a kill that is not confirmed; empty if there is none. */
  get said() {
    return this.order && this.order.kind !== "killed" ? byId("kill-news").textContent : "";
  }

  /** Forgets this kill: the next person to sign in has not sent it. */
  stop() {
    this.release();
    this.order = this.confirmedAt = null;
  }

  fire() {
    if (this.isBusy) return this.hasten(this.order);
    const reason = byId("kill-reason").value.trim();
    const order = { id: newId(), key: currentKey(), reason, since: performance.now(), attempts: 0, maybe: false, settled: false, kind: "", text: "" };
    this.order = order;
    // Send before anything is drawn: no fault of this page may hold the kill back.
    this.send(order);
    guard("the kill's news", () => this.say("sending", "SENDING NOW: no answer yet."));
  }

  /** Sends the next attempt at once: the present one may hang for seconds. */
  hasten(order) {
    order.isHastened = true;
    order.limit.abort("another hold sent it again");
    order.wake?.();
  }

  async send(order) {
    while (!order.settled && this.order === order) {
      order.attempts += 1;
      order.isHastened = false;
      order.limit = new AbortController();
      const { answer, error } = await this.attempt(order);
      guard("the kill's news", () => (answer ? this.take(order, answer) : this.failed(order, error.message)));
      if (!order.settled && !order.isHastened) await Promise.race([pause(AGAIN_MS), new Promise((now) => { order.wake = now; })]);
    }
    guard("the other tabs", () => announce(order.id, 0));
  }

  /** One request, under the same id each time. Nothing that happens here ends the kill. */
  async attempt(order) {
    try {
      if (order.isStuck) guard("making room", () => (makeRoom(), this.letGo()));
      const body = order.reason ? { reason: order.reason } : undefined;
      const sent = request("POST", "/control/kill-switch", {
        body, idempotencyKey: order.id, key: order.key, seconds: ATTEMPT_SECONDS, isUrgent: true, limit: order.limit,
      });
      guard("the other tabs", () => announce(order.id, order.attempts));
      const answer = await sent;
      order.isStuck = false;
      return { answer };
    } catch (error) {
      order.isStuck = true;
      return { error };
    }
  }

  take(order, answer) {
    const { status, body } = answer;
    const at = `${clock(Date.now() + this.view.skew)} UTC`;
    if (status === 200 && body?.action === "killed") return this.settle(order, "killed", `KILLED (200) at ${at}: the coordinator has confirmed it.`);
    if (status === 202 && body?.action === "kill_accepted") {
      this.settle(order, "recorded", `RECORDED (202) at ${at}: Temporal has it, and no worker has confirmed it yet. It takes effect as soon as a worker runs, unless somebody terminates the workflow or has paused it in Temporal. Until it is confirmed, open orders can still fill: cancel them at the venue by hand.`);
      return void this.follow(order, answer.headers.get("Location"));
    }
    const why = isPerhaps(answer) ? "Temporal did not answer the API in time (503)" : problem(answer);
    // A gateway may also set an X-Request-Id, so check the command's id as well.
    const isOurs = !isForeign(answer) && (isOfKey(answer) || answer.headers.get("X-Command-Id") === order.id);
    if (!isOurs || status >= 500 || mayPass(answer)) {
      if (!isOurs || !(isUnrecorded(answer) || mayPass(answer))) order.maybe = true;
      return this.repeat(order, status < 400 && answer.isJson ? `something other than the API answered (${status})` : why);
    }
    this.settle(order, "refused", `${order.maybe ? "NOT KNOWN whether an earlier attempt arrived; this attempt was refused" : "NOT SENT"}: ${why}`);
  }

  /** The answer is lost, so the request may have arrived, whatever the browser says about the network. */
  failed(order, why) {
    order.maybe = true;
    this.repeat(order, why);
  }

  repeat(order, why) {
    if (order.settled) return;
    const known = order.maybe ? "SENT, AND IT IS NOT KNOWN whether it arrived" : "NOT SENT";
    this.say(order.maybe ? "unknown" : "unsent", `${known}: ${why}. This page keeps sending it under the same id until the API confirms it (attempt ${order.attempts}).`);
  }

  settle(order, kind, text) {
    if (order.settled && order.kind === "killed") return;
    Object.assign(order, { settled: true, kind, text, settledAt: performance.now() });
    if (kind === "killed") this.confirmedAt = order.settledAt;
    this.say(kind, text);
  }

  async follow(order, location) {
    while (this.order === order && order.kind === "recorded") {
      await pause(AGAIN_MS);
      const answer = await request("GET", location || `/control/commands/${order.id}`).catch(() => null);
      if (answer && this.order === order) guard("the kill's news", () => this.takeOutcome(order, answer));
    }
  }

  takeOutcome(order, answer) {
    const { status, body, isJson } = answer;
    if (status === 200 && body?.command === "kill" && body.outcome === "applied") {
      return this.settle(order, "killed", `KILLED, seen at ${clock(Date.now() + this.view.skew)} UTC: the coordinator has confirmed it.`);
    }
    if (order.kind === "recorded" && isJson && status >= 400) this.say("recorded", `${order.text} Asked again, the API says: ${problem(answer)}`);
  }

  say(kind, text) {
    const news = byId("kill-news");
    news.dataset.kind = kind;
    setText(news, text);
    this.drawLabel();
    this.drawByHand();
  }

  drawLabel() {
    const killed = this.view.status && this.view.status.state === "killed";
    this.button.disabled = !this.isAllowed;
    if (!this.isAllowed) return setText(byId("kill-label"), `KILL: not with this key (${this.view.role})`);
    setText(byId("kill-label"), this.isBusy ? "Sending… hold: resend now" : killed ? "KILL AGAIN: hold 1 s" : "KILL: hold 1 s");
  }

  /** Called with each status. */
  see(status) {
    const { order } = this;
    if (order && order.kind !== "killed" && status.kill && status.kill.command_id === order.id) {
      this.settle(order, "killed", `KILLED at ${clock(Date.parse(status.kill.at))} UTC: the coordinator shows this kill.`);
    }
    if (order && order.settled) this.seeEnd(order, status);
    if (status.state === "killed" || performance.now() - this.confirmedAt > AFTER_MS + this.view.heard.lateMs) this.confirmedAt = null;
    this.drawLabel();
  }

  /** Once the desk is no longer killed, says so, with the reason and actor of the status, instead of the kill's last result. */
  seeEnd(order, status) {
    if (!["killed", "recorded"].includes(order.kind)) return;
    if (status.state === "killed") order.isShown = true;
    else if (order.isShown || (order.kind === "killed" && performance.now() - order.settledAt > AFTER_MS + this.view.heard.lateMs)) {
      this.order = null;
      const why = `${status.actor ? `, by ${status.actor}` : ""}${status.reason ? `: ${status.reason}` : ""}`;
      this.say("over", `NO LONGER KILLED: the desk is ${status.state}${why}. The last result of the kill from this page: ${order.text}`);
    }
  }

  /** Called twice a second. */
  tick() {
    this.read();
    drawKillProgress(this.view, this);
    this.drawByHand();
  }

  async read() {
    const kill = this.view.status && this.view.status.kill;
    // What became of an earlier kill's instructions must not stand below this one.
    if (this.readOf !== kill?.command_id) Object.assign(this, { instructions: [], readOf: kill?.command_id, readAt: -Infinity, oldSince: null });
    if (!kill || this.isReading) return;
    const wanted = `${kill.command_id} ${kill.verified_at}`;
    if ((kill.verified_at && this.readFor === wanted) || performance.now() - this.readAt < 2000 || !this.view.connected) return;
    this.readAt = performance.now();
    this.isReading = true;
    const at = Date.now() + this.view.skew;
    try {
      const rows = await rowsOf(`/reports/instructions?limit=${MOST_INSTRUCTIONS}&command_id=${encodeURIComponent(kill.command_id)}`);
      if (this.readOf !== kill.command_id) return;
      // Rows are written a moment after they are settled.
      const open = rows.some((it) => it.outcome === "prepared");
      Object.assign(this, { instructions: rows, readFor: open || !rows.length ? "" : wanted, rowsAt: at, oldSince: null });
    } catch {
      Object.assign(this, { readFor: "", oldSince: this.rowsAt });
    } finally {
      this.isReading = false;
    }
  }

  drawByHand() {
    const { terms } = this.view;
    const { kind } = byId("kill-news").dataset;
    const isSlow = this.isBusy && performance.now() - this.order.since > SLOW_MS;
    const isOpen = isSlow || doubt(this.view) === SILENT_API || ["unknown", "unsent", "refused"].includes(kind);
    const box = byId("kill-by-hand");
    const canHelp = isOpen || !this.view.connected;
    box.hidden = !(terms && (canHelp || kind === "recorded"));
    const reason = byId("kill-reason").value;
    const symbols = this.view.status?.covered_symbols ?? [];
    const lacks = lacksTemporal(this.view);
    // A recorded kill has reached Temporal, so the lines for a terminal are not needed; cancels by hand may still be.
    const isUnconfirmed = ["sending", "unknown", "unsent", "refused", "recorded"].includes(kind);
    const shown = [terms && canHelp ? terms : null, reason, symbols, lacks, isUnconfirmed];
    draw(box, shown, () => [...(shown[0] ? byHand(terms, reason, lacks) : []), ...(isUnconfirmed ? atVenue(symbols) : [])]);
    draw(byId("by-hand"), [terms, reason], () => [
      h("p", null, "Kill directly through Temporal, from a terminal that reaches it. Either command kills; ",
        "the API is not needed. Never use Terminate or Reset."), ...(terms ? lines(terms, reason) : []),
      h("p", { class: "dim" }, "If Temporal needs TLS or a key, use your own profile of the temporal command.")]);
  }
}

/** How a person kills this desk without the API. */
export const byHand = (terms, reason, lacksTemporal = false) => [
  h("p", null, lacksTemporal ? "Temporal does not answer the API. From a terminal that reaches it, either of these kills:" : "Without the API, from a terminal, either of these kills:"),
  ...lines(terms, reason),
];

/** What a person can do at the venue by hand, whatever is down. */
const atVenue = (symbols) => (symbols.length ? [h("p", null, `Until the kill is confirmed, cancel at the venue by hand: every open order, futures and spot, of ${symbols.join(", ")}.`)] : []);

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function lines({ workflow, address, namespace }, reason) {
  const to = `--workflow-id ${quoted(workflow)} --address ${quoted(address)} --namespace ${quoted(namespace)}`;
  const input = reason.trim() ? ` --input ${quoted(JSON.stringify(reason.trim()))}` : "";
  return [copyLine(`temporal workflow signal ${to} --name kill${input}`), copyLine(`temporal workflow cancel ${to}`)];
}
