// Pause, resume, cancel all, deleverage, limits. Each form says what it will do; each command is followed to its outcome.

import { isForeign, problem, request, rowsOf, Unreachable } from "./api.js";
import { byId, draw, h, setText } from "./dom.js";
import { about, clock, plain, words } from "./format.js";
import { isUnrecorded, newId } from "./kill.js";
import { outcomesTable } from "./panels.js";
import { may } from "./session.js";

const MOST_SHOWN = 20;
const FOLLOWED_MS = 10 * 60_000;
// The most rows that a report has in a page. A cancel of every symbol has two for each of up to 200 symbols.
const MOST_ROWS = 1000;
// The second click of a double click must not be a second command.
const REST_MS = 1500;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const ACTIONS = { pause: "paused", resume: "resumed", "cancel-all": "cancel_all_prepared", deleverage: "deleverage_prepared", limits: "limits_set" };
// The name of a command, if its address has a different one.
const NAMES = { limits: "set_limits" };

export class Commands {
  constructor(view) {
    this.view = view;
    this.forms = [this.pauseForm(), this.resumeForm(), this.cancelForm(), this.deleverageForm(), this.limitsForm()];
    byId("commands").replaceChildren(...this.forms.map((form) => form.node));
  }

  /** `plan` computes from the status what the form would do: `tell` in words, the request, and the reason if it may not. */
  form(name, label, inputs, plan, needs = "operator") {
    const tells = h("p", { class: "tells", id: `${name}-tells` });
    const button = h("button", { type: "submit", "aria-describedby": `${name}-tells`, disabled: true }, label);
    const node = h("form", { class: "command", "aria-label": label }, tells, h("div", { class: "row" }, inputs, button));
    const form = { node, tells, button, plan, needs, label, planned: null, isBusy: false };
    node.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(form);
    });
    // Enter held down is one command: its repetitions would send another as soon as the form rests no more.
    node.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
    node.addEventListener("input", () => this.see());
    return form;
  }

  pauseForm() {
    const reason = h("input", { type: "text", maxlength: 500, placeholder: "Reason, optional", "aria-label": "Reason for the pause" });
    return this.form("pause", "Pause", [reason], (status) => ({
      tell: "No new orders, except those that reduce (by a soft limit, or your deleverage). Open orders and positions stay.",
      path: "pause", what: "pause", body: reason.value.trim() ? { reason: reason.value.trim() } : undefined,
      whyNot: status.state === "running" ? "" : `The desk is ${status.state}.`,
    }));
  }

  resumeForm() {
    return this.form("resume", "Resume", [], (status) => ({
      tell: `${status.mode === "shadow" ? "Decides again, and sends nothing" : "Trades again"}: ${status.symbols.join(", ")}, every ${status.cycle_seconds} s, in mode ${status.mode}.`,
      path: "resume", what: "resume",
      whyNot: status.state === "paused" ? "" : `The desk is ${status.state}.`,
    }));
  }

  cancelForm() {
    const select = h("select", { "aria-label": "Symbols whose orders are canceled" });
    return this.form("cancel", "Cancel all", [select], (status) => {
      const symbol = choose(select, [["", "every symbol"], ...status.covered_symbols.map((it) => [it, it])]);
      const seen = status.observation ? status.observation.open_orders.filter((it) => !symbol || it.symbol === symbol) : null;
      const list = seen && seen.slice(0, 5).map((it) => `${it.symbol} ${it.side} ${plain(it.quantity)}${it.price === null ? "" : ` at ${plain(it.price)}`}`).join(", ");
      const known = seen === null ? "the venue has not been read yet" : seen.length ? `${seen.length} seen: ${list}${seen.length > 5 ? ", …" : ""}` : "none was seen at the last reading";
      return {
        tell: `Cancels open orders of ${symbol || "every symbol"}, futures and spot (${known}). Works in every state; positions stay.`,
        path: "cancel-all", body: { symbols: symbol ? [symbol] : null }, what: `cancel all of ${symbol || "every symbol"}`, whyNot: "",
      };
    });
  }

  deleverageForm() {
    const select = h("select", { "aria-label": "Position to reduce" });
    const share = h("select", { "aria-label": "By how much" }, [25, 50, 75, 100].map((it) => h("option", { value: it / 100, ...(it === 50 ? { selected: true } : {}) }, `${it} %`)));
    return this.form("deleverage", "Deleverage", [select, share], (status) => {
      const held = status.observation ? status.observation.positions.filter((it) => it.market === "futures") : [];
      const symbol = choose(select, held.length ? held.map((it) => [it.symbol, it.symbol]) : [["", "no position"]]);
      const part = Number(share.value);
      const it = held.find((one) => one.symbol === symbol);
      const request = { path: "deleverage", body: { symbol, reduce_pct: part }, what: `deleverage ${symbol} by ${part * 100} %` };
      const none = `No position ${symbol ? `in ${symbol} ` : ""}was seen at the last reading.`;
      if (!it) return { ...request, tell: `Reduces one position by a market order that can only reduce. ${none}`, whyNot: none };
      const size = Math.abs(Number(it.quantity)) * part;
      return {
        ...request, whyNot: "",
        tell: `Sends one market order that can only reduce: ${Number(it.quantity) > 0 ? "SELL" : "BUY"} about ${about(size)} ${symbol}. The position was ${plain(it.quantity)} when last read; the desk uses the size at the time of the order.`,
      };
    });
  }

  limitsForm() {
    const select = h("select", { "aria-label": "Limit to change" });
    const value = h("input", { type: "text", inputmode: "decimal", size: 8, maxlength: 40, autocomplete: "off", placeholder: "New value", "aria-label": "New value of the limit" });
    const reason = h("input", { type: "text", maxlength: 500, placeholder: "Reason, optional", "aria-label": "Reason for the change" });
    return this.form("limits", "Change limit", [select, value, reason], (status) => {
      const name = choose(select, Object.keys(status.limits).map((it) => [it, words(it)]));
      const now = String(status.limits[name]), wanted = value.value.trim();
      const isNumber = /^\d+(\.\d+)?$/.test(wanted);
      const change = isNumber ? `${words(name)}: ${plain(now)} → ${plain(wanted)}.` : `${words(name)} is ${plain(now)}.`;
      return {
        tell: `${change} A tighter limit applies at once; a looser one is refused unless the desk is paused.`,
        path: "limits", what: change, body: { limits: { [name]: wanted }, ...(reason.value.trim() ? { reason: reason.value.trim() } : {}) },
        whyNot: !isNumber ? "Type a number." : Number(wanted) === Number(now) ? "That is its present value." : "",
      };
    }, "admin");
  }

  /** Called with each status, and when an input changes. */
  see() {
    const { status } = this.view;
    if (!status) return;
    this.tellRole();
    for (const form of this.forms) {
      form.planned = form.plan(status);
      setText(form.tells, form.planned.tell);
      form.button.disabled = form.isBusy || Boolean(form.planned.whyNot);
      form.button.title = form.planned.whyNot;
    }
  }

  /** Does not offer commands that this key may not send; names the role that they need instead. */
  tellRole() {
    const { role } = this.view;
    const missing = this.forms.filter((form) => !may(role, form.needs));
    for (const form of this.forms) form.node.hidden = missing.includes(form);
    const needed = [...new Set(missing.map((form) => form.needs))];
    const takes = needed.map((it) => `${missing.filter((form) => form.needs === it).map((form) => form.label).join(", ")}: a key with the role ${it}`);
    byId("commands-not").hidden = !missing.length;
    setText(byId("commands-not"), missing.length ? `This key has the role ${role} and cannot send these commands. ${takes.join(". ")}.` : "");
  }

  /** Sends exactly what the text above the button says, once. */
  async submit(form) {
    if (form.button.disabled || !form.planned) return;
    form.isBusy = form.button.disabled = true;
    const { path, body, what } = form.planned;
    const entry = { id: newId(), path, what, node: h("li", null), rows: [] };
    byId("outcomes").prepend(entry.node);
    while (byId("outcomes").childElementCount > MOST_SHOWN) byId("outcomes").lastElementChild.remove();
    try {
      await Promise.all([this.post(entry, body), pause(REST_MS)]);
    } finally {
      form.isBusy = false;
      this.see();
    }
  }

  async post(entry, body) {
    this.say(entry, "Sending…");
    try {
      const answer = await request("POST", `/control/${entry.path}`, { body, idempotencyKey: entry.id });
      this.take(entry, answer);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      this.say(entry, `NOT KNOWN whether it arrived: ${error.message}.`, "bad", () => this.post(entry, body));
      this.follow(entry, null, null);
    }
  }

  take(entry, answer) {
    const { status, body } = answer;
    if (status === 200 && body?.action === ACTIONS[entry.path]) return this.applied(entry, body);
    if (status === 202 && body?.action === `${NAMES[entry.path] ?? entry.path.replace("-", "_")}_accepted`) {
      return void this.follow(entry, answer.headers.get("Location"), "RECORDED, not confirmed yet.");
    }
    if (status < 400) throw new Unreachable(`something other than the API answered (${status})`);
    if (isForeign(answer) || (status >= 500 && !isUnrecorded(answer))) throw new Unreachable(problem(answer));
    this.say(entry, `${status === 409 || status === 422 ? "REFUSED" : "NOT DONE"}: ${problem(answer)}`, "bad");
  }

  async follow(entry, location, text) {
    if (text) this.say(entry, text);
    const end = performance.now() + FOLLOWED_MS;
    const turn = (entry.turn = {});
    while (performance.now() < end && entry.turn === turn && entry.node.isConnected) {
      await pause(1000);
      const answer = await request("GET", location || `/control/commands/${entry.id}`).catch(() => null);
      if (entry.turn !== turn || !answer || answer.status !== 200 || answer.body?.command_id !== entry.id) continue;
      if (answer.body.outcome === "applied") return void this.applied(entry, answer.body);
      if (answer.body.outcome === "refused") return void this.say(entry, `REFUSED: ${answer.body.detail}`, "bad");
      if (answer.body.outcome === "pending") this.say(entry, "RECORDED; the desk is carrying it out.");
    }
    if (entry.turn === turn) this.leave(entry);
  }

  /** Shows what the API has confirmed, and no more: a prepared instruction has not reached the venue yet. */
  applied(entry, body) {
    entry.turn = {};
    const order = body.instruction;
    const cancels = body.cancel_instructions;
    const expected = order ? 1 : cancels ? cancels.length : 0;
    if (!order && !cancels) return this.say(entry, `APPLIED: ${words(body.action)}.`, "good");
    // The order was filled in part: the rest of the position stays.
    const part = (order && body.detail) || "";
    const what = order ? `Order prepared: ${order.side} ${order.quantity} ${order.symbol}, reduce-only.${part && ` Only in part: ${part}.`}` : `${expected} cancels prepared.`;
    const shadow = this.view.status?.mode === "shadow" ? " In mode shadow nothing is sent." : "";
    const text = `APPLIED${part && " IN PART"}: ${words(body.action)}. ${what}${shadow}`;
    this.say(entry, `${text} 0 of ${expected} confirmed by the venue.`, part && "bad");
    if (expected) this.followRows(entry, text, expected, Boolean(part));
  }

  async followRows(entry, text, expected, isPart) {
    const end = performance.now() + FOLLOWED_MS;
    while (performance.now() < end && entry.node.isConnected) {
      await pause(1000);
      const rows = await rowsOf(`/reports/instructions?limit=${MOST_ROWS}&command_id=${encodeURIComponent(entry.id)}`).catch(() => []);
      if (!rows.length) continue;
      entry.rows = rows;
      const count = (outcome) => rows.filter((it) => it.outcome === outcome).length;
      const wrong = ["failed", "unknown"].filter(count).map((it) => `, ${count(it)} ${it}`).join("");
      const all = Math.max(expected, rows.length);
      this.say(entry, `${text} ${count("confirmed")} of ${all} confirmed by the venue${wrong}.`, wrong || isPart ? "bad" : count("confirmed") === all ? "good" : "");
      if (count("confirmed") + count("failed") === all) return;
    }
    this.leave(entry);
  }

  /** Nobody looks any more whether the last text still holds, so it says so. */
  leave(entry) {
    const at = clock(Date.now() + this.view.skew);
    this.say(entry, `${entry.text} As known at ${at} UTC: this page has stopped following it. The log has what came later.`, entry.kind, entry.again);
  }

  say(entry, text, kind = "", again = null) {
    Object.assign(entry, { text, kind, again });
    entry.node.className = kind;
    const at = (entry.at ||= clock(Date.now() + this.view.skew));
    draw(entry.node, [text, entry.rows, Boolean(again)], () => [
      h("strong", null, `${at} UTC ${entry.what}`), ` ${text} `,
      again ? h("button", { type: "button", class: "plain", onclick: again }, "Send again, same id") : "",
      entry.rows.length ? h("details", null, h("summary", null, "Instructions"), outcomesTable(entry.rows)) : ""]);
  }
}

/** Offers these options, and returns the chosen one. An option that disappears stays chosen: only a person chooses another. */
function choose(select, pairs) {
  const chosen = select.value;
  const isGone = chosen && !pairs.some(([it]) => it === chosen);
  const all = isGone ? [...pairs, [chosen, `${chosen} (gone)`]] : pairs;
  draw(select, all, () => all.map(([it, name]) => h("option", { value: it, selected: it === chosen }, name)));
  return select.value;
}
