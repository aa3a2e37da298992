// The HTTP API, with the user's key.

import { currentKey } from "./session.js";

/** There was no answer, or it did not come from the API: it is not known whether the request arrived. */
export class Unreachable extends Error {}

// Behind a proxy the API may have a path prefix. The page is in the folder `console/` below it.
const ROOT = new URL("..", location.href).pathname.replace(/\/$/, "");
const readings = new Set();

export const address = (path) => `${ROOT}${path}`;

/** Aborts every request that only reads, so that a kill gets a connection. */
export function makeRoom() {
  for (const limit of readings) limit.abort("it made room for a kill");
}

let onWarning = () => {};

/** Sets the function that gets the API's warnings about the key (`X-AIS-Warning`). */
export function hearWarnings(work) {
  onWarning = work;
}

/** `isUrgent`: the request has priority, and continues after the page is closed. Aborting `limit` ends it early. */
export async function request(method, path, { body, idempotencyKey, seconds = 10, key = currentKey(), isUrgent = false, limit = new AbortController() } = {}) {
  const headers = { Authorization: `Bearer ${key}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
  // Not `AbortSignal.any`: a browser of 2023 lacks it, and a kill must not fail for that.
  const timer = setTimeout(() => limit.abort(`no answer within ${seconds} s`), seconds * 1000);
  if (method === "GET") readings.add(limit);
  try {
    const response = await fetch(address(path), {
      method, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", redirect: "error",
      body: body === undefined ? undefined : JSON.stringify(body), signal: limit.signal,
      ...(isUrgent ? { priority: "high", keepalive: true } : {}),
    });
    // Warnings of a GET are about the key; those of a command may be about its body.
    if (method === "GET" && response.ok && key === currentKey()) onWarning(response.headers.get("X-AIS-Warning"));
    return { status: response.status, headers: response.headers, ...(await read(response)) };
  } catch {
    throw new Unreachable(limit.signal.aborted ? limit.signal.reason : "no connection");
  } finally {
    clearTimeout(timer);
    readings.delete(limit);
  }
}

/** The body. `isJson` is false if something between the page and the API answered: a proxy's page, a hotel's sign-in. */
async function read(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    return { body, isJson: body !== null && typeof body === "object" };
  } catch (error) {
    if (error instanceof SyntaxError) return { body: { detail: text.slice(0, 300) }, isJson: false };
    throw error;
  }
}

/** The rows of a report. */
export async function rowsOf(path) {
  const answer = await request("GET", path);
  if (answer.status !== 200 || !Array.isArray(answer.body)) throw new Error(problem(answer));
  return answer.body;
}

/**
 * Whether a refusal cannot have come from the API: only the API knows what became of a command. A gateway may also refuse in
 * JSON, but every answer of the API has an `X-Request-Id`, a 401 too.
 */
export const isForeign = ({ status, headers, isJson }) => !isJson || status < 400 || !headers.has("X-Request-Id");

/** Whether the same request may succeed a moment later: an API that has just started has not read its keys yet. */
export const isPassing = ({ status, headers }) => (status === 401 || status === 403) && headers.has("Retry-After");

/** The problem in words. A 422 has a list of problems. A header says why a key was refused, if its holder may know. */
export function problem({ status, headers, body, isJson }) {
  if (!isJson) return `something other than the API answered (${status})`;
  const detail = body.detail;
  const text = Array.isArray(detail) ? detail.map((it) => `${(it?.loc ?? []).slice(1).join(" ")}: ${it?.msg}`).join("; ") : detail;
  const hint = status === 401 ? headers.get("X-AIS-Warning") : "";
  return `${String(text || "no explanation").replace(/\.$/, "")} (${status})${hint ? `: ${hint}` : ""}`;
}
