// @ts-check
/** The language of the page: what the browser prefers, or what was chosen. */

import {keep, kept} from "./keep.js";
import {TEXTS} from "./texts.js";

/** @typedef {keyof TEXTS} Language */

export const LANGUAGES = /** @type {Language[]} */ (Object.keys(TEXTS));
/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {Language} */
let language = "en";

/** @returns {Language} */
function preferred() {
  const wanted = [kept("language"), ...(navigator.languages ?? [navigator.language])];
  for (const each of wanted) {
    const found = LANGUAGES.find((name) => each?.toLowerCase().startsWith(name));
    if (found) return found;
  }
  return "en";
}

/** @param {Language} name */
function apply(name) {
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : name;
}

apply(preferred());

export function currentLanguage() {
  return language;
}

/** @param {Language} name */
export function setLanguage(name) {
  apply(name);
  keep("language", name);
  for (const listener of listeners) listener();
}

/** @param {() => void} listener */
export function onLanguage(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/**
 * A text, with `{name}` replaced by its parameter, which may be `{t: another text}`; where it has two forms, `n` says which.
 *
 * @param {string} name @param {Record<string, any>} [parameters]
 * @returns {string}
 */
export function text(name, parameters = {}) {
  /** @type {any} */
  const found = /** @type {any} */ (TEXTS[language])[name];
  if (found === undefined) return `⟦${name}⟧`;
  const form = typeof found === "string" ? found : found[new Intl.PluralRules(language).select(parameters.n)] ?? found.other;
  return form.replace(/\{(\w+)\}/g, (/** @type {string} */ _all, /** @type {string} */ key) => {
    const value = parameters[key] ?? "";
    if (typeof value === "number") return number(value);
    return typeof value === "object" ? text(value.t) : String(value);
  });
}

/** A count as people write it: 12,345, or 1.2万. @param {number} value */
export function number(value) {
  return new Intl.NumberFormat(document.documentElement.lang, {
    notation: value >= 10_000 ? "compact" : "standard", maximumFractionDigits: 1,
  }).format(value);
}

/** The time of day, with the date where it is not today. @param {number} ms */
export function time(ms) {
  const when = new Date(ms);
  /** @type {Intl.DateTimeFormatOptions} */
  const format = {hour: "2-digit", minute: "2-digit", hour12: false};
  if (when.toDateString() !== new Date().toDateString()) Object.assign(format, {month: "numeric", day: "numeric"});
  return new Intl.DateTimeFormat(document.documentElement.lang, format).format(when);
}
