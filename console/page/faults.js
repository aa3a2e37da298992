// Faults of the page itself. They are told as such, and never taken for the API's silence; and none of them stops the rest.

import { byId, setText } from "./dom.js";

const found = new Map();

/** Does it; whether that worked. */
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
    // Then nothing can be told; the rest goes on.
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
