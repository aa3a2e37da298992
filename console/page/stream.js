// `GET /control/events`, read by fetch since EventSource sends no key. It reconnects by itself until it is stopped.

import { address, isPassing, problem } from "./api.js";
import { Heard } from "./bar.js";
import { currentKey } from "./session.js";

const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 2000;
// The server sends something each second. After this long without anything, reconnect.
const SILENCE = 6000;
const HELD_BACK = "No event arrives from the API: it hangs, or a proxy holds its events back.";

export class Stream {
  /** `on`: opened(headers), event(name, text, readAt), confirmed(readAt), lost(why, answered), refused(why). */
  constructor(on) {
    this.on = on;
    this.lastId = "";
    this.stopped = false;
    this.heard = new Heard();
    // The reasons for which the stream stays disconnected for now.
    this.resting = new Set();
    this.run();
  }

  stop() {
    this.stopped = true;
    this.letGo();
  }

  rest(why) {
    this.resting.add(why);
    this.letGo();
  }

  resume(why) {
    this.resting.delete(why);
    this.wake?.();
  }

  /** Drops the connection and reconnects a moment later, so that another request can take the connection. */
  letGo() {
    this.abort?.abort();
    this.wake?.();
  }

  async run() {
    let pause = FIRST_PAUSE;
    while (!this.stopped) {
      if (this.resting.size) {
        this.on.lost([...this.resting][0]);
        await new Promise((done) => (this.wake = done));
        continue;
      }
      try {
        await this.once();
        pause = FIRST_PAUSE;
        if (!this.stopped) this.on.lost("The API closed the stream.");
      } catch (error) {
        if (this.stopped) return;
        if (this.resting.size) continue;
        const answered = error instanceof Answered;
        this.on.lost(answered ? error.message : this.isHeldBack ? HELD_BACK : "The API cannot be reached.", answered);
      }
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  }

  async once() {
    const abort = (this.abort = new AbortController());
    this.isHeldBack = false;
    this.watch();
    try {
      const headers = { Authorization: `Bearer ${currentKey()}`, Accept: "text/event-stream" };
      if (this.lastId) headers["Last-Event-ID"] = this.lastId;
      const response = await fetch(address("/control/events"), {
        headers, cache: "no-store", credentials: "omit", redirect: "error", signal: abort.signal,
      });
      if (response.status !== 200) await this.refuse(response);
      if (!(response.headers.get("Content-Type") || "").startsWith("text/event-stream")) throw new Answered("Something other than the API answered.");
      this.on.opened(response.headers);
      await this.read(response.body.getReader());
    } finally {
      clearTimeout(this.silence);
      // Abort however it ended: a response that nobody reads any more would keep its connection.
      abort.abort();
    }
  }

  async refuse(response) {
    const body = await response.json().catch(() => null);
    const why = problem({ status: response.status, headers: response.headers, body, isJson: body !== null && typeof body === "object" });
    if (body && (response.status === 401 || response.status === 403) && !isPassing(response)) {
      this.stop();
      this.on.refused(why);
    }
    throw new Answered(why);
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.stopped) return;
      // This machine slept, and the timer of `watch` with it: what comes first was sent before, and would pass for new.
      if (this.heard.ms > SILENCE) throw new Answered("This machine was asleep, or its clock was set: asking again.");
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) this.take(part);
    }
  }

  take(part) {
    const lines = part.split("\n");
    const readAt = Date.parse((lines.find((it) => it.startsWith(": read ")) || "").slice(7));
    const fields = Object.fromEntries(lines.filter((it) => !it.startsWith(":")).map((it) => [it.split(":", 1)[0], it.slice(it.indexOf(":") + 2)]));
    if (fields.id) this.lastId = fields.id;
    // A comment without a time of reading does not come from the API: a proxy sends it to keep the connection alive.
    if (!fields.event && !Number.isFinite(readAt)) return;
    this.watch();
    if (fields.event) this.on.event(fields.event, fields.data, readAt);
    else this.on.confirmed(readAt);
  }

  watch() {
    this.heard.now();
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.isHeldBack = true;
      this.abort.abort();
    }, SILENCE);
  }
}

class Answered extends Error {}
