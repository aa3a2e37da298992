// The account over time: equity, drawdown, leverage, and the price of one symbol with the desk's own executions.

import { Unreachable, request, problem } from "./api.js";
import { Heard } from "./bar.js";
import { byId, h, setText } from "./dom.js";
import { guard } from "./faults.js";
import { about, percent, plain, utc, words } from "./format.js";
import { plot } from "./plot.js";

const HOUR_MS = 3_600_000;
const RANGES = { "1 hour": HOUR_MS, "1 day": 24 * HOUR_MS, "7 days": 168 * HOUR_MS, all: null };
const REFRESH_MS = 15_000;
const POINTS = 600;
const MOST_MARKS = 200, MOST_FILLS = 500;
// A line connects two points even if so many cycles between them are missing.
const LOST_CYCLES = 4;
const KINDS = { control: "command", risk_action: "limit" };

export class Charts {
  constructor(view) {
    this.view = view;
    this.range = "1 day";
    this.symbol = null;
    this.turn = {};
    this.drawn = null;
    this.heard = new Heard();
    this.timer = setInterval(() => this.refresh(), REFRESH_MS);
    this.sizes = new ResizeObserver(() => guard("the charts", () => this.draw()));
    this.sizes.observe(byId("charts"));
  }

  stop() {
    clearInterval(this.timer);
    this.sizes.disconnect();
    this.turn = {};
  }

  /** Takes the symbols from a status. The first status also starts the reading of the charts. */
  see(status) {
    const symbols = status.covered_symbols.join(" ");
    if (this.symbols === symbols) return;
    this.symbols = symbols;
    if (!status.covered_symbols.includes(this.symbol)) this.symbol = status.symbols[0] ?? null;
    this.drawControls(status.covered_symbols);
    this.choose({});
  }

  drawControls(symbols) {
    const pick = (name, values, chosen, change) => {
      const box = h("select", null, values.map((it) => h("option", { value: it, selected: it === chosen }, it)));
      box.addEventListener("change", () => change(box.value));
      return h("label", null, `${name} `, box);
    };
    byId("chart-controls").replaceChildren(
      pick("time", Object.keys(RANGES), this.range, (range) => this.choose({ range })),
      pick("price of", symbols, this.symbol, (symbol) => this.choose({ symbol })),
    );
  }

  choose(changes) {
    Object.assign(this, changes);
    this.turn = {};
    this.isReading = false;
    this.refresh();
  }

  async refresh() {
    if (this.isReading || document.hidden || this.view.isResting || !this.view.connected || this.symbols === undefined) return;
    const { turn } = this;
    this.isReading = true;
    const found = await this.read();
    if (this.turn !== turn) return;
    this.isReading = false;
    if (found) {
      this.drawn = found;
      this.heard.now();
    }
    guard("the charts", () => this.draw());
  }

  /** Called if the page hears from the API again: charts from before a time in the background must not pass for the present. */
  again() {
    if (!this.drawn || this.heard.ms < REFRESH_MS) return;
    setText(byId("chart-problem"), `Reloading the charts. Below: as read at ${utc(this.drawn.to)} UTC.`);
    this.refresh();
  }

  /** Reads one report after the other: a browser has six connections to a host, and a kill needs one. */
  async read() {
    const to = Date.now() + this.view.skew;
    const back = RANGES[this.range];
    const since = back === null ? {} : { since: new Date(to - back).toISOString() };
    try {
      const curve = await rows("/reports/equity", { points: POINTS, symbol: this.symbol, ...since });
      const marks = [];
      let isCut = false;
      for (const kind of Object.keys(KINDS)) {
        const found = await rows("/reports/decisions", { decision_type: kind, limit: MOST_MARKS, ...since });
        isCut ||= found.length === MOST_MARKS;
        marks.push(...found);
      }
      const fills = await rows("/reports/fills", { symbol: this.symbol, limit: MOST_FILLS, ...since }, true);
      setText(byId("chart-problem"), "");
      return { range: this.range, symbol: this.symbol, to, from: back === null ? null : to - back, curve, marks, isCut, fills };
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof Refused)) throw error;
      const old = this.drawn ? ` Below: as read at ${utc(this.drawn.to)} UTC.` : "";
      setText(byId("chart-problem"), `The charts cannot be loaded: ${error.message}.${old}`);
      return null;
    }
  }

  draw() {
    const box = byId("charts");
    if (!this.drawn) return;
    const { curve, to, symbol, fills } = this.drawn;
    const times = curve.map((it) => Date.parse(it.time));
    // If the desk is younger than the chosen range, the chart begins with the desk.
    const from = Math.max(this.drawn.from ?? 0, times[0] ?? to - HOUR_MS);
    const marks = this.drawn.marks.map((it) => ({ t: Date.parse(it.timestamp), kind: KINDS[it.decision_type], text: `${utc(it.timestamp)} UTC: ${it.summary}` }));
    const cycle = (this.view.status?.cycle_seconds ?? 60) * 1000;
    // A thinned curve has two points in each stretch.
    const gap = Math.max(LOST_CYCLES * cycle, (3 * 2 * (to - from)) / POINTS);
    const series = (field) => curve.map((it, at) => ({ t: times[at], v: Number(it[field]) })).filter((it, at) => curve[at][field] !== null);
    const width = Math.max(300, Math.floor(box.clientWidth / columns(box)) - 12);
    const one = (name, field, format, more = {}) => figure({ name, points: series(field), from, to, gap, format, marks, width, ...more });
    box.replaceChildren(
      one("Equity", "equity", (v) => about(v, 7)),
      one("Drawdown", "drawdown", percent, { limits: this.limits("drawdown") }),
      one("Leverage", "leverage", (v) => `${v.toFixed(2)} ×`, { limits: this.limits("leverage") }),
      one("Gross exposure", "gross_exposure", percent, { limits: this.limits("gross_exposure") }),
      one("Net exposure", "net_exposure", percent, { limits: this.limits("net_exposure") }),
      ...(symbol ? [one(`Price of ${symbol}${lack(fills)}`, "price", (v) => about(v, 7), { dots: (fills ?? []).map(dot) })] : []),
    );
    drawMarks(this.drawn.marks, this.drawn.isCut);
  }

  limits(name) {
    const found = this.view.status?.portfolio?.limits.find((it) => it.limit === name);
    if (!found) return [];
    const both = [{ v: Number(found.soft), name: "soft" }, { v: Number(found.hard), name: "hard" }];
    // The only measure with a sign has its limits on both sides of zero.
    return name === "net_exposure" ? [...both, ...both.map((it) => ({ ...it, v: -it.v }))] : both;
  }
}

class Refused extends Error {}

/** `mayLack`: a 503 is acceptable, because of a real account whose books are not known yet nobody knows the executions: null. */
async function rows(path, query, mayLack = false) {
  const known = Object.entries(query).filter(([, value]) => value !== null);
  const answer = await request("GET", `${path}?${new URLSearchParams(known)}`);
  if (answer.status === 200 && Array.isArray(answer.body)) return answer.body;
  if (mayLack && answer.status === 503) return null;
  throw new Refused(problem(answer));
}

const columns = (box) => (box.clientWidth >= 1400 ? 3 : box.clientWidth >= 760 ? 2 : 1);

/** Which executions the chart does not show. */
const lack = (fills) => (fills === null ? " (executions not known)" : fills.length < MOST_FILLS ? "" : ` (with the newest ${MOST_FILLS} executions only)`);

const dot = (it) => ({ t: Date.parse(it.filled_at), v: Number(it.price), kind: it.side, text: `${utc(it.filled_at)} UTC: ${it.side} ${plain(it.quantity)} at ${plain(it.price)}` });

function figure(facts) {
  const { said, node } = plot(facts);
  return h("figure", null, h("figcaption", null, said), node);
}

function drawMarks(found, isCut) {
  const newest = [...found].sort((a, b) => Date.parse(b.timestamp) - Date.parse(a.timestamp));
  const line = (it) => h("li", { class: KINDS[it.decision_type] }, h("time", null, utc(it.timestamp)), h("span", { class: "kind" }, words(it.decision_type)), ` ${it.summary}`);
  byId("marks").replaceChildren(...newest.map(line));
  const cut = isCut ? `; of each, only the newest ${MOST_MARKS}, so older ones are missing` : "";
  setText(byId("marks-title"), newest.length ? `Marks in the charts: ${newest.length} (commands, and what limits did${cut})` : "Marks in the charts: none");
}
