// One chart over time, as SVG: a line, limits across it, dots on it, and marks on the time axis.

import { clock } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170, LEFT = 72, RIGHT = 12, TOP = 8, BOTTOM = 22;
const MINUTE_MS = 60_000, HOUR_MS = 3_600_000, DAY_MS = 86_400_000;
const TIME_STEPS = [...[5, 10, 15, 30].map((it) => it * MINUTE_MS), ...[1, 2, 3, 6, 12].map((it) => it * HOUR_MS), ...[1, 2, 7, 14, 30, 90].map((it) => it * DAY_MS)];

function s(tag, props, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props || {})) node.setAttribute(name, String(value));
  node.append(...children.flat(Infinity));
  return node;
}

export const day = (ms) => new Date(ms).toISOString().slice(5, 10);

/**
 * `points`: [{ t, v }] oldest first, `t` in milliseconds. If two points are more than `gap` apart, the line is interrupted: nothing
 * is known of the time between. `limits`: [{ v, name }]. `dots`: [{ t, v, kind, text }]. `marks`: [{ t, kind, text }]. `format` makes text of a value.
 */
export function plot({ name, points, from, to, gap, format, limits = [], dots = [], marks = [], width }) {
  const frame = scales({ points, from, to, limits, dots, width });
  const values = points.map((it) => it.v);
  const said = points.length
    ? `${name}: last ${format(values.at(-1))}, lowest ${format(least(values))}, highest ${format(most(values))}`
    : `${name}: no data for this time`;
  const parts = [grid(frame, format), limits.map((it) => limit(frame, it)), marks.filter(isWithin(from, to)).map((it) => mark(frame, it)),
    line(frame, points, gap), dots.filter(isWithin(from, to)).map((it) => dot(frame, it))];
  return { said, node: s("svg", { class: "plot", role: "img", "aria-label": said, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` }, parts) };
}

const isWithin = (from, to) => (it) => it.t >= from && it.t <= to;
// Not `Math.min(...values)`: thousands of arguments may be too many.
const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function scales({ points, from, to, limits, dots, width }) {
  const values = [...points, ...limits, ...dots].map((it) => it.v).filter(Number.isFinite);
  // A chart with limits includes zero.
  if (limits.length || !values.length) values.push(0, values.length ? 0 : 1);
  let low = least(values), high = most(values);
  const room = (high - low) * 0.06 || Math.abs(high) * 0.001 || 1;
  // A measure that is never negative gets no room below zero.
  [low, high] = [low >= 0 && low < room ? 0 : low - room, high + room];
  const span = Math.max(to - from, 1);
  return {
    from, to, low, high, width,
    x: (t) => LEFT + ((t - from) / span) * (width - LEFT - RIGHT),
    y: (v) => TOP + ((high - v) / (high - low)) * (HEIGHT - TOP - BOTTOM),
  };
}

function grid({ from, to, low, high, width, x, y }, format) {
  const rows = ticks(low, high, decimalStep((high - low) / 5));
  const wanted = (to - from) / Math.max(2, Math.floor((width - LEFT) / 90));
  const step = TIME_STEPS.find((it) => it >= wanted) ?? TIME_STEPS.at(-1) * Math.ceil(wanted / TIME_STEPS.at(-1));
  // No label of the time axis may extend beyond the edge.
  const columns = ticks(from, to, step).filter((t) => x(t) > LEFT + 14 && x(t) < width - 18);
  const time = (t) => (step >= DAY_MS ? day(t) : clock(t).slice(0, 5));
  return [
    ...rows.map((v) => s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v) })),
    ...rows.map((v) => s("text", { class: "axis", x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, format(v))),
    ...columns.map((t) => s("text", { class: "axis", x: x(t), y: HEIGHT - 6, "text-anchor": "middle" }, time(t))),
  ];
}

/** The multiples of a step from `low` to `high`. */
function ticks(low, high, step) {
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) }, (_, it) => (first + it) * step);
}

/** The smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, … that is at least `least`. */
function decimalStep(least) {
  const size = 10 ** Math.floor(Math.log10(least));
  return size * [1, 2, 5, 10].find((it) => it * size >= least);
}

function line({ x, y }, points, gap) {
  const path = points.map(({ t, v }, at) => `${at && t - points[at - 1].t <= gap ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`);
  // A point between two gaps makes no line and would be invisible, so it gets a dot.
  const alone = points.filter(({ t }, at) => !(at && t - points[at - 1].t <= gap) && !(at + 1 < points.length && points[at + 1].t - t <= gap));
  return [s("path", { class: "line", d: path.join("") }), ...alone.map(({ t, v }) => s("circle", { class: "alone", cx: x(t), cy: y(v), r: 2 }))];
}

function limit({ width, y }, { v, name }) {
  return [
    s("line", { class: `limit ${name}`, x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v) }),
    // The two names stand side by side: the lines may be closer together than a word is high.
    s("text", { class: `limit-name ${name}`, x: LEFT + (name === "hard" ? 40 : 4), y: y(v) - 3 }, name),
  ];
}

function dot({ x, y }, { t, v, kind, text }) {
  const tip = kind === "BUY" ? "M0 -5L5 4L-5 4Z" : "M0 5L5 -4L-5 -4Z";
  return s("path", { class: `dot ${kind.toLowerCase()}`, d: tip, transform: `translate(${x(t)} ${y(v)})` }, s("title", null, text));
}

function mark({ x }, { t, kind, text }) {
  return s("g", { class: `mark ${kind}` },
    s("line", { x1: x(t), x2: x(t), y1: TOP, y2: HEIGHT - BOTTOM }),
    s("path", { d: `M${x(t)} ${HEIGHT - BOTTOM}l4 6l-8 0Z` }), s("title", null, text));
}
