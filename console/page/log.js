// The log: newest rows by themselves, older ones in pages, and never more than a few hundred of them in memory.

import { request, problem, Unreachable } from "./api.js";
import { byId, draw, h, setText } from "./dom.js";
import { plain, utc, words } from "./format.js";

const PAGE = 50;
const MOST_ROWS = 300;
const AGAIN_MS = 5000;

const KINDS = {
  decisions: { path: "/reports/decisions", id: (it) => it.decision_id, line: decision, filters: ["decision_type", "risk_passed", "agent_id", "symbol"] },
  instructions: { path: "/reports/instructions", id: (it) => `${it.instruction_id} ${it.outcome} ${it.attempts}`, line: instruction, filters: ["outcome", "command_id", "symbol"] },
  fills: { path: "/reports/fills", id: (it) => it.fill_id, line: fill, filters: ["symbol"] },
};

const FILTERS = {
  decision_type: ["kind", ["", "order_intent", "control", "risk_action", "no_action"]],
  risk_passed: ["guards", ["", "true", "false"], { true: "passed", false: "refused" }],
  outcome: ["outcome", ["", "prepared", "confirmed", "unknown", "failed"]],
  agent_id: ["agent"],
  symbol: ["symbol"],
  command_id: ["command id"],
};

export class Log {
  constructor() {
    this.kind = "decisions";
    this.values = {};
    this.box = byId("log");
    this.list = h("ol", { class: "rows" });
    this.newest = h("button", { type: "button", class: "plain", hidden: true, onclick: () => this.reload() }, "Newer rows: go to the newest");
    this.older = h("button", { type: "button", class: "plain", hidden: true, onclick: () => this.page() }, "Older rows");
    this.box.replaceChildren(this.newest, this.list, this.older);
    // Reading the scroll position at each row would make the browser lay out the whole page each time.
    this.box.addEventListener("scroll", () => { this.isDown = this.box.scrollTop > 4; }, { passive: true });
    this.drawControls();
    this.clear();
  }

  clear() {
    this.isDown = false;
    this.turn = {};
    this.ids = [];
    this.next = null;
    this.isDetached = false;
    this.isReading = this.isBehind = this.isOwed = this.isOlderWanted = false;
    this.readAt = -Infinity;
    this.list.replaceChildren();
    this.newest.hidden = this.older.hidden = true;
  }

  drawControls() {
    const kinds = h("select", { "aria-label": "Which log" }, Object.keys(KINDS).map((it) => h("option", { value: it, selected: it === this.kind }, it)));
    kinds.addEventListener("change", () => {
      this.kind = kinds.value;
      this.values = {};
      this.drawControls();
      this.reload();
    });
    const inputs = KINDS[this.kind].filters.map((name) => this.filter(name));
    byId("log-controls").replaceChildren(h("label", null, "show ", kinds), ...inputs);
  }

  filter(name) {
    const [label, choices, shown = {}] = FILTERS[name];
    const input = choices
      ? h("select", null, choices.map((it) => h("option", { value: it }, it ? shown[it] || words(it) : "all")))
      : h("input", { type: "text", size: 12, placeholder: "all", autocomplete: "off" });
    input.addEventListener("change", () => {
      this.values[name] = input.value.trim();
      this.reload();
    });
    return h("label", null, `${label} `, input);
  }

  address(more) {
    const query = new URLSearchParams({ limit: PAGE, ...more });
    for (const [name, value] of Object.entries(this.values)) if (value) query.set(name, value);
    return `${KINDS[this.kind].path}?${query}`;
  }

  /** The rows of one page, and where the next page begins; null if they could not be loaded, which the page then says. */
  async fetch(more = {}) {
    const { turn } = this;
    try {
      const answer = await request("GET", this.address(more));
      if (this.turn !== turn) return null;
      const isFine = answer.status === 200 && Array.isArray(answer.body);
      // What is wrong with the filters stays wrong; anything else may pass.
      this.isOwed = !isFine && answer.status !== 422;
      setText(byId("log-problem"), isFine ? "" : `No more rows can be loaded: ${problem(answer)}`);
      if (!isFine) return null;
      const link = /[?&]cursor=([^&>]+)/.exec(answer.headers.get("Link") || "");
      return { rows: answer.body, next: link && decodeURIComponent(link[1]) };
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      if (this.turn !== turn) return null;
      this.isOwed = true;
      setText(byId("log-problem"), `The log cannot be loaded: ${error.message}. Newer rows may be missing below.`);
      return null;
    }
  }

  async reload() {
    this.clear();
    const page = await this.reading();
    if (!page) return;
    this.append(page);
    if (!page.rows.length) this.list.replaceChildren(h("li", { class: "dim" }, "No rows."));
    this.box.scrollTop = 0;
  }

  /** One page; null if it could not be loaded, or is no longer wanted. `isReading` is true meanwhile. */
  async reading(more) {
    const { turn } = this;
    this.isReading = true;
    this.readAt = performance.now();
    const page = await this.fetch(more);
    if (this.turn !== turn) return null;
    this.isReading = false;
    if (this.isBehind) {
      this.isBehind = false;
      setTimeout(() => this.news(), 1000);
    }
    if (this.isOlderWanted) {
      this.isOlderWanted = false;
      // Once the caller has taken this page: it says where the older rows begin.
      setTimeout(() => this.page());
    }
    return page;
  }

  append({ rows, next }) {
    for (const row of rows) {
      this.ids.push(KINDS[this.kind].id(row));
      this.list.append(this.row(row));
    }
    this.next = next;
    this.older.hidden = !next;
  }

  async page() {
    if (!this.next) return;
    if (this.isReading) return void (this.isOlderWanted = true);
    const page = await this.reading({ cursor: this.next });
    if (!page) return;
    this.append(page);
    this.dropNewest();
  }

  /** Drops the newest rows if a person has paged back far; a button then leads back to them. */
  dropNewest() {
    const before = this.box.scrollHeight;
    while (this.ids.length > MOST_ROWS) {
      this.ids.shift();
      this.list.firstElementChild.remove();
      this.isDetached = true;
      this.newest.hidden = false;
    }
    this.box.scrollTop -= before - this.box.scrollHeight;
  }

  /** Called if there are new rows; makes at most one request at a time. */
  async news() {
    if (this.isReading) return void (this.isBehind = true);
    if (this.isDetached) return;
    const page = await this.reading();
    if (page) this.prepend(page);
  }

  /**
   * Called twice a second while the API answers. Only a new decision is announced, once: outcomes of instructions and fills also
   * come without one, above all on a desk that is paused or killed, and a page that could not be loaded is announced to nobody again.
   */
  again() {
    if ((this.kind !== "decisions" || this.isOwed) && performance.now() - this.readAt > AGAIN_MS) this.news();
  }

  prepend(page) {
    const known = new Set(this.ids);
    const isFresh = (row) => !known.has(KINDS[this.kind].id(row));
    const fresh = page.rows.filter(isFresh);
    if (!fresh.length) return;
    if (!known.size) {
      // The first page. It also says where the older rows begin.
      this.list.replaceChildren();
      return this.append(page);
    }
    const isReader = this.isDown || this.list.querySelector("details[open]");
    // A gap, a row that was written late and belongs further down, or too many rows: do not move the rows that a person is
    // reading; otherwise start again with the newest.
    const isOnTop = fresh.length < page.rows.length && page.rows.slice(0, fresh.length).every(isFresh);
    if (!isOnTop || this.ids.length + fresh.length > MOST_ROWS || this.kind === "instructions") {
      if (isReader) return void Object.assign(this.newest, { hidden: false }, (this.isDetached = true));
      this.list.replaceChildren();
      this.ids = [];
      return this.append(page);
    }
    this.insert(fresh, isReader);
  }

  insert(fresh, isReader) {
    const before = isReader ? this.box.scrollHeight : 0;
    this.list.prepend(...fresh.map((row) => this.row(row)));
    this.ids.unshift(...fresh.map((row) => KINDS[this.kind].id(row)));
    if (isReader) this.box.scrollTop += this.box.scrollHeight - before;
  }

  row(row) {
    const { line } = KINDS[this.kind];
    const details = h("details", null, h("summary", null, line(row)));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(facts(row));
    });
    return h("li", { class: grave(row) ? "grave" : "" }, details);
  }
}

const grave = (row) => row.risk_passed === false || ["unknown", "failed"].includes(row.outcome) || row.decision_type === "risk_action";

function decision(row) {
  const verdict = row.risk_passed === false ? h("strong", null, ` refused: ${row.risk_reasons.join("; ")}`) : "";
  return [h("time", null, utc(row.timestamp)), h("span", { class: "kind" }, words(row.decision_type)), ` ${row.summary}`, verdict];
}

function instruction(row) {
  const order = row.side ? ` ${row.side} ${plain(row.quantity)}${row.price ? ` at ${plain(row.price)}` : ""}` : "";
  return [h("time", null, utc(row.prepared_at)), h("span", { class: "kind" }, row.outcome), ` ${words(row.tool)} ${row.symbol}${order}`];
}

function fill(row) {
  return [h("time", null, utc(row.filled_at)), h("span", { class: "kind" }, row.market), ` ${row.side} ${plain(row.quantity)} ${row.symbol} at ${plain(row.price)}, fee ${plain(row.fee)}`];
}

function facts(row) {
  const show = (value) => (value === null ? "–" : typeof value === "object" ? Object.entries(value).map(([name, it]) => (Array.isArray(value) ? it : `${name} ${it}`)).join(", ") || "–" : String(value));
  return h("dl", { class: "facts" }, Object.entries(row).map(([name, value]) => h("div", null, h("dt", null, words(name)), h("dd", null, show(value)))));
}
