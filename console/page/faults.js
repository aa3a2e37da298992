// Faults of the page itself. They are shown as such, never mistaken for a silent API, and none of them stops the rest of the page.

import { byId, setText } from "./dom.js";

const found = new Map();

/** Does the work. Returns whether it succeeded; a failure is shown under the name `what`. */
export function guard(what, work) {
  try {
    work();
    found.delete(what);
  } catch (error) {
    if (!found.has(what)) console.error(error);
    found.set(what, String(error));
  }
  try {
    tell();
  } catch {
    // The fault cannot be shown; the rest of the page continues.
  }
  return !found.has(what);
}

function tell() {
  const note = byId("fault");
  note.hidden = !found.size;
  if (!found.size) return;
  const list = [...found].map(([what, error]) => `${what}: ${error}`).join("; ");
  setText(note, `This page has a fault, and what it shows may be wrong (${list}). Reload it, or use ais status. Kill still works.`);
}
