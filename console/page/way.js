// Makes room for a kill in the browser: it opens only six connections to a host for all tabs together, and each tab has a stream.

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("ais-kill") : null;
// An attempt takes 8 s at most, and each one is announced. After this long without one, the other tab's kill is over.
const QUIET_MS = 10_000;

/** Tells the other tabs which attempt of this kill is being sent; 0 means that none is sent any more. */
export function announce(id, attempt) {
  channel?.postMessage({ id, attempt });
}

/** `rest` drops this tab's connections, `resume` opens them again; both are called for kills of other tabs. */
export function giveWay(rest, resume) {
  if (!channel) return;
  // One timer per kill: the kill of one tab may be over while another tab still sends its own.
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
