// The key: only in this tab's sessionStorage, taken from the address, and forgotten on Lock and after a time without input.

const NAME = "ais-key";
let idleMs = 30 * 60_000;
let input = [0, 0];

const ROLES = ["viewer", "operator", "admin"];

/** Whether a key with `role` may do something that needs the role `needed`. If the key's role is not known, the API decides. */
export const may = (role, needed) => !ROLES.includes(role) || ROLES.indexOf(role) >= ROLES.indexOf(needed);

// In a browser that may store nothing (cookies are blocked) even to look raises: the page would stay empty. The key then lasts as
// long as the page.
function openStore() {
  try {
    sessionStorage.getItem(NAME);
    return sessionStorage;
  } catch {
    const kept = new Map();
    return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value), removeItem: (name) => kept.delete(name) };
  }
}

const store = openStore();

export const currentKey = () => store.getItem(NAME);
export const keep = (key) => store.setItem(NAME, key);
export const forget = () => store.removeItem(NAME);

/** Whether a header can hold the key. If not, the browser would send nothing, which would look like an API that cannot be reached. */
export const isSendable = (key) => /^[!-~]+$/.test(key);

/** Takes a key from the address's fragment, and removes the fragment. Returns whether there was a key. */
export function takeOver() {
  const found = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!location.hash.includes("key=")) return false;
  history.replaceState(null, "", location.pathname + location.search);
  if (found) keep(found);
  return Boolean(found);
}

export function lockAfter(minutes) {
  if (minutes > 0) idleMs = minutes * 60_000;
}

// Two clocks: one stands still while the machine sleeps, and somebody may set the other.
const clocks = () => [Date.now(), performance.now()];

export const isIdle = () => clocks().some((now, which) => now - input[which] > idleMs);

export function noteInput() {
  input = clocks();
}

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
  addEventListener(kind, noteInput, { passive: true, capture: true });
}
