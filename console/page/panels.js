// The panels: positions, orders, limits, warnings, and the progress of a kill.

import { doubt, isOverdue, isStuck } from "./bar.js";
import { byId, draw, h, setText, table } from "./dom.js";
import { guard } from "./faults.js";
import { LEVELS, about, age, percent, plain, utc, words } from "./format.js";

const PANELS = ["warnings", "positions", "orders", "unknown", "limits"];

/** A panel without a word would look like one that has nothing to tell. */
function drawUnknown() {
  for (const id of PANELS) {
    const tag = id === "warnings" ? "li" : "p";
    guard(id, () => draw(byId(id), "not known", () => h(tag, { class: "dim" }, "Not known: the coordinator has not answered this page yet.")));
  }
}

export function drawPanels(view) {
  const { status } = view;
  if (!status) return drawUnknown();
  const seen = status.observation;
  guard("the age of the reading", () => tellAge(view));
  const panel = (id, facts, make) => guard(id, () => draw(byId(id), facts, make));
  panel("positions", [seen && seen.positions, seen && seen.nav], () => positions(seen));
  panel("orders", [seen && seen.open_orders, status.resting_orders], () => orders(status));
  panel("unknown", [status.unknown_orders, status.open_instructions, status.open_instructions_total], () => unsettled(status));
  panel("limits", [status.portfolio, status.limits], () => limits(status));
  guard("warnings", () => {
    const found = warnings(view);
    draw(byId("warnings"), found, () => (found.length ? found.map(warning) : h("li", { class: "dim" }, "None.")));
  });
}

/** Whether positions, orders and limits come from a reading that another one should have replaced by now. */
const isOld = (view) => {
  const { observation, observation_error } = view.status;
  return Boolean(observation && (observation_error || isOverdue(view, observation.observed_at)));
};

/** Says how old the reading is, on a stale page too: the last reading may be much older than the last confirmed state. */
function tellAge(view) {
  const old = Boolean(view.status.observation) && (Boolean(doubt(view)) || isOld(view));
  document.body.classList.toggle("old-reading", old);
  const at = old ? Date.parse(view.status.observation.observed_at) : 0;
  for (const note of document.querySelectorAll(".old-note")) {
    note.hidden = !old;
    setText(note, old ? `Read at ${utc(at)} UTC, ${age(Date.now() - view.ahead - at)} ago. This page knows of no newer reading: this may have changed.` : "");
  }
}

function positions(seen) {
  if (!seen) return h("p", { class: "dim" }, "Not known: the venue has not been read yet.");
  const rows = seen.positions.map((it) => {
    const notional = Number(it.quantity) * Number(it.mark_price);
    const profit = Number(it.quantity) * (Number(it.mark_price) - Number(it.entry_price));
    const side = Number(it.quantity) < 0 ? "short" : "long";
    return { cells: [it.symbol, it.market, side, plain(it.quantity), about(Number(it.entry_price), 8), plain(it.mark_price), about(notional), about(profit, 4)] };
  });
  const names = ["symbol", "market", "side", "quantity", "entry", "mark", "value", "unrealised"];
  const foot = h("p", { class: "dim" }, `Net asset value ${about(Number(seen.nav), 10)}; read ${utc(seen.observed_at)} UTC`);
  return [table(names, rows, "None: the account was flat when it was last read."), foot];
}

function orders(status) {
  const seen = status.observation;
  if (!seen) return h("p", { class: "dim" }, "Not known: the venue has not been read yet.");
  const agents = new Map(status.resting_orders.flatMap((it) => [[it.order_id, it.agent_id], [it.venue_order_id, it.agent_id]]));
  const rows = seen.open_orders.map((it) => ({
    cells: [it.symbol, it.side, plain(it.quantity), plain(it.filled_quantity), it.price === null ? "market" : plain(it.price),
      it.reduce_only ? "yes" : "no", agents.has(it.order_id) ? agents.get(it.order_id) || "not this desk's" : "not known yet", it.order_id],
  }));
  return table(["symbol", "side", "quantity", "filled", "price", "reduce only", "agent", "id"], rows, "None when the venue was last read.");
}

function unsettled(status) {
  const unknown = new Set(status.unknown_orders);
  const rows = status.open_instructions.map((it) => ({
    class: it.outcome === "unknown" ? "grave" : "",
    cells: [it.outcome === "unknown" ? "NOT KNOWN" : "not confirmed", words(it.tool), it.symbol, utc(it.since), String(it.attempts), it.last_error || "–", it.instruction_id],
  }));
  const listed = new Set(status.open_instructions.map((it) => it.instruction_id));
  for (const id of unknown) if (!listed.has(id)) rows.push({ class: "grave", cells: ["NOT KNOWN", "create order", "–", "–", "–", "–", id] });
  // The total counts orders too, and those of unknown fate are among the rows.
  const more = status.open_instructions_total - rows.length;
  return [table(["at the venue", "what", "symbol", "since (UTC)", "tries", "last error", "id"], rows, "None."),
    ...(more > 0 ? [h("p", null, `and ${more} more`)] : [])];
}

function limits(status) {
  if (!status.portfolio) return h("p", { class: "dim" }, "Not known: the account has not been assessed yet.");
  const rows = status.portfolio.limits.map((it) => {
    const show = it.limit === "leverage" ? (value) => `${Number(value).toFixed(2)} ×` : percent;
    const used = Number(it.soft) > 0 ? Number(it.value) / Number(it.soft) : 0;
    const bound = (at) => {
      const left = Number(at) - Number(it.value);
      return h("span", { class: "bound" }, show(at), h("small", null, left > 0 ? ` ${show(left)} left` : " reached"));
    };
    return {
      class: it.level === "calm" ? "" : `level-${it.level}`,
      cells: [words(it.limit), show(it.value), meter(used), LEVELS[it.level] || it.level, bound(it.soft), bound(it.hard)],
    };
  });
  return table(["limit", "now", "of soft", "level", "soft: reduces", "hard: kills"], rows, "None.");
}

function meter(used) {
  const text = `${Math.round(used * 100)} %`;
  return h("span", { class: "meter" }, h("meter", { min: 0, max: 1, low: 0.5, high: 0.9, optimum: 0, value: Math.min(used, 1), "aria-label": "share of the soft limit" }), ` ${text}`);
}

const firstSeen = new Map();
// A condition that ends by itself within this time is not worth a warning.
const SETTLES_MS = 5000;

/** Warnings, the gravest first, each with the time since when this page has seen it: the desk does not say when it began. */
function warnings(view) {
  const { status, health } = view;
  const found = [];
  const add = (rank, text, afterMs = 0) => found.push({ rank, text, afterMs });
  // The list holds the first few; a coordinator of an earlier version tells no total.
  const unknown = Math.max(status.unknown_orders_total ?? 0, status.unknown_orders.length);
  if (unknown) add(0, `Fate unknown: ${unknown} of the desk's orders. The desk keeps asking the venue.`);
  if (isStuck(view)) add(0, "The desk has missed three cycles. It is not known whether a worker of this desk and mode runs: without one, a kill takes effect, but sends no cancels. Start one; until then cancel at the venue by hand.", SETTLES_MS);
  if (status.kill && !status.kill.latched) add(0, "The kill is in force, but not in the database yet. Until it is, a restart is refused.");
  if (status.restart_pending) add(1, "A restart is under way. The desk stays killed until it is finished.");
  for (const text of status.warnings) add(1, text);
  if (status.observation_error) add(1, `The last reading of the venue failed: ${status.observation_error}`);
  else if (!doubt(view) && isOld(view)) add(1, "The venue has not been read for more than a cycle and 3 s.");
  if (status.observation && status.observation.account.halted) add(1, `The venue takes no new order: ${status.observation.account.halted}`);
  for (const [name, it] of Object.entries(status.failing_agents)) {
    const out = it.quarantined_until ? `, left out until cycle ${it.quarantined_until}` : "";
    add(2, `Agent ${name} failed ${it.failures} times${out}.`);
  }
  if (status.records_waiting) add(2, "Rows of the log are not written yet: they wait for the database.", SETTLES_MS);
  if (health && health.status === "degraded") add(2, "Health is degraded. The lamps at the top show what does not answer; ais doctor says more.", SETTLES_MS);
  return keepTimes(found.sort((a, b) => a.rank - b.rank), view.skew);
}

/** Measures how long a warning stands by the steady clock: if somebody sets the machine's clock back, that one would hide all of them. */
function keepTimes(found, skew) {
  const each = [...new Map(found.map((it) => [it.text, it])).values()];
  const texts = new Set(each.map((it) => it.text));
  for (const text of firstSeen.keys()) if (!texts.has(text)) firstSeen.delete(text);
  const now = performance.now();
  for (const it of each) {
    if (!firstSeen.has(it.text)) firstSeen.set(it.text, { at: Date.now() + skew, from: now });
    it.since = firstSeen.get(it.text).at;
  }
  return each.filter((it) => now - firstSeen.get(it.text).from >= it.afterMs);
}

const RANKS = ["GRAVE", "WARNING", "NOTE"];

function warning(it) {
  return h("li", { class: `rank-${it.rank}` }, h("strong", null, RANKS[it.rank]), ` ${it.text} `, h("small", { class: "dim" }, `first seen by this page ${utc(it.since)} UTC`));
}

// Of a kill's instructions, the newest ones are shown.
export const MOST_INSTRUCTIONS = 40;

/** The progress of the kill in force, whoever sent it. `oldSince`: when the rows were read that could not be read again. */
export function drawKillProgress(view, { instructions, oldSince }) {
  const { status } = view;
  const kill = status && status.kill;
  byId("kill-progress").hidden = !kill;
  if (!kill) return;
  const end = kill.verified_at ? Date.parse(kill.verified_at) : null;
  const facts = [kill, instructions, oldSince, status.observation?.observed_at, end ? 0 : Math.floor(Date.now() / 1000)];
  draw(byId("kill-progress-body"), facts, () => [...killFacts(view, kill, end), ...killRows(instructions, oldSince),
    h("p", { class: "dim" }, "Only a person can bring the desk back, on the command line: ais restart. This page cannot.")]);
}

function killFacts({ status, skew }, kill, end) {
  const took = age((end || Date.now() + skew) - Date.parse(kill.at));
  // A reading from before the kill says nothing about the positions now.
  const isSince = status.observation && Date.parse(status.observation.observed_at) > Date.parse(kill.at);
  const positions = isSince ? status.observation.positions : null;
  const flat = kill.flat_at ? `flat since ${utc(kill.flat_at)} UTC` : positions === null ? "not read since the kill"
    : positions.length ? `NOT flat at ${utc(status.observation.observed_at)} UTC: ${positions.map((it) => `${it.symbol} ${plain(it.quantity)}`).join(", ")}${kill.flattens ? "; the desk closes them" : "; a kill leaves positions open on this desk"}`
    : `none when read at ${utc(status.observation.observed_at)} UTC`;
  const verified = kill.verified_at ? `VERIFIED: no open order at the venue, ${took} after the kill` : `NOT YET VERIFIED, ${took} since the kill`;
  const rows = [
    ["how far", verified], ["cancels", `${kill.confirmed} of ${kill.cancels} confirmed by the venue`],
    ["still open", kill.residue.length ? h("ul", null, kill.residue.map((it) => h("li", null, it))) : "nothing"], ["positions", flat],
    ["killed", `${utc(kill.at)} UTC by ${kill.actor} (${kill.source}): ${kill.reason}`],
    ["database", kill.latched ? "the kill is written to it" : "the kill is not written to it yet, but is in force all the same"],
  ];
  const grown = kill.grown.map((it) => `${it.symbol} ${plain(it.before)} → ${plain(it.now)}`);
  if (grown.length) rows.push(["GREW", grown.join(", ")]);
  const list = h("dl", { class: "facts" }, rows.map(([name, text]) => h("div", null, h("dt", null, name), h("dd", null, text))));
  return [h("p", null, kill.progress), list];
}

function killRows(instructions, oldSince) {
  if (!instructions.length) return [];
  const old = `As read at ${utc(oldSince)} UTC. They could not be read again: the facts above are newer.`;
  const cut = `These are the newest ${MOST_INSTRUCTIONS}. The log below has all of them: show instructions.`;
  return [...(oldSince ? [h("p", null, old)] : []), outcomesTable(instructions), ...(instructions.length < MOST_INSTRUCTIONS ? [] : [h("p", { class: "dim" }, cut)])];
}

export function outcomesTable(rows) {
  return h("div", { class: "scroll cards", tabindex: 0, role: "region", "aria-label": "Instructions and their outcomes" },
    table(["instruction", "symbol", "outcome", "attempts", "detail"], rows.map((it) => ({
      class: ["unknown", "failed"].includes(it.outcome) ? "grave" : "",
      cells: [words(it.tool), it.symbol, it.outcome, String(it.attempts), it.detail || "–"],
    })), "None."));
}
