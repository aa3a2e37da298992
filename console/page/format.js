// Numbers and times for people.

export function age(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

export const utc = (value) => (value ? new Date(value).toISOString().replace("T", " ").slice(0, 19) : "never");

export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

/** The exact decimal, without trailing zeros. */
export function plain(text) {
  const value = String(text ?? "–");
  return /^-?\d+\.\d+$/.test(value) ? value.replace(/\.?0+$/, "") : value;
}

export function about(number, digits = 6) {
  return Number.isFinite(number) ? String(Number(number.toPrecision(digits))) : "unknown";
}

export const percent = (text) => `${(Number(text) * 100).toFixed(2)} %`;

export const words = (code) => String(code).replaceAll("_", " ");

export const LEVELS = {
  calm: "calm",
  warn_50: "warned at 50 % of soft",
  warn_75: "warned at 75 % of soft",
  warn_90: "warned at 90 % of soft",
  soft: "SOFT: the desk reduces",
  hard: "HARD: the desk kills itself",
};
