// The key: in this tab's sessionStorage alone, taken over from the address, forgotten on Lock and when nobody is there.

const NAME = "ais-key";
let idleMs = 30 * 60_000;
let input = [0, 0];

const ROLES = ["viewer", "operator", "admin"];

/** Whether a key may do what needs this role. Where the API did not say which role it has, the API decides. */
export const may = (role, needed) => !ROLES.includes(role) || ROLES.indexOf(role) >= ROLES.indexOf(needed);

export const currentKey = () => sessionStorage.getItem(NAME);
export const keep = (key) => sessionStorage.setItem(NAME, key);
export const forget = () => sessionStorage.removeItem(NAME);

/** Takes a key out of the fragment and the fragment out of the address; whether there was one. */
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

// By two clocks: one stands still while the machine sleeps, the other one can be set.
const clocks = () => [Date.now(), performance.now()];

export const isIdle = () => clocks().some((now, which) => now - input[which] > idleMs);

export function noteInput() {
  input = clocks();
}

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
  addEventListener(kind, noteInput, { passive: true, capture: true });
}
