// Estimates how late the server's events arrive: a proxy that holds events back would make an old state look new.
//
// Nothing arrives before it was sent. So each answer is an upper bound of how far this machine's clock is ahead of the server's.
// The lowest bound of the last half minute is the best estimate.

const KEPT_MS = 30_000;
// If the two clocks drift apart by this much, somebody has set this machine's clock, or it slept.
const SET_MS = 1000;

export class ServerClock {
  constructor() {
    this.samples = [];
    this.offset = 0;
  }

  /** Notes an answer that arrives now; `served` is the server's time of it, in milliseconds. */
  note(served) {
    if (!Number.isFinite(served)) return;
    const now = Date.now(), steady = performance.now();
    if (Math.abs(now - steady - this.offset) > SET_MS) this.samples = [];
    this.offset = now - steady;
    this.samples = this.samples.filter((it) => steady - it.at < KEPT_MS);
    this.samples.push({ at: steady, ahead: now - served });
  }

  /** Upper bound of how far this machine's clock is ahead of the server's, in milliseconds. */
  get ahead() {
    return this.samples.length ? Math.min(...this.samples.map((it) => it.ahead)) : 0;
  }

  /** Lower bound of how long an event of this server time has been on its way, in milliseconds. */
  lateness(served) {
    return Number.isFinite(served) ? Math.max(0, Date.now() - served - this.ahead) : 0;
  }
}
