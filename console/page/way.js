// The kill's right of way in the browser: one opens six connections to a host, for all tabs together, and each tab holds a stream.

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("ais-kill") : null;
// An attempt takes 8 s, and each one is announced.
const QUIET_MS = 10_000;

/** Told to the other tabs: which attempt of this kill is being sent; 0 is none any more. */
export function announce(id, attempt) {
  channel?.postMessage({ id, attempt });
}

/** `rest` lets go of this tab's connections, `resume` takes them again; both are called for kills of other tabs. */
export function giveWay(rest, resume) {
  if (!channel) return;
  // One for each kill: that of one tab may be over while another tab still sends its own.
  const timers = new Map();
  const over = (id) => {
    clearTimeout(timers.get(id));
    timers.delete(id);
    if (!timers.size) resume();
  };
  channel.onmessage = ({ data: { id, attempt } }) => {
    if (!attempt) return over(id);
    clearTimeout(timers.get(id));
    timers.set(id, setTimeout(over, QUIET_MS, id));
    rest();
  };
}
