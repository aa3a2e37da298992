// How late something comes that the server sent: a proxy may keep what makes an old state look new.
//
// Nothing arrives before it was sent. So each answer bounds by how much this machine's clock is ahead of the server's, and the
// lowest bound of the last half minute is the nearest.

const KEPT_MS = 30_000;
// Somebody has set this machine's clock, or it slept.
const SET_MS = 1000;

export class ServerClock {
  constructor() {
    this.samples = [];
    this.offset = 0;
  }

  /** An answer that arrives now was dated so by the server, in milliseconds. */
  note(served) {
    if (!Number.isFinite(served)) return;
    const now = Date.now(), steady = performance.now();
    if (Math.abs(now - steady - this.offset) > SET_MS) this.samples = [];
    this.offset = now - steady;
    this.samples = this.samples.filter((it) => steady - it.at < KEPT_MS);
    this.samples.push({ at: steady, ahead: now - served });
  }

  /** By how much this machine's clock is ahead of the server's, at most. */
  get ahead() {
    return this.samples.length ? Math.min(...this.samples.map((it) => it.ahead)) : 0;
  }

  /** For how long, at least, this has been on its way. */
  lateness(served) {
    return Number.isFinite(served) ? Math.max(0, Date.now() - served - this.ahead) : 0;
  }
}
