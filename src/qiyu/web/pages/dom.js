// @ts-check
/**
 * Elements, made one by one: a child that is a string becomes text, and nothing ever becomes HTML.
 *
 *     h("button", {class: "quiet", t: "room.like", on: {click: like}}, icon("heart"))
 *
 * `t`, `label`, `hint` and `placeholder` name a text of texts.js, or are `[name, parameters]`: the content of the
 * element's last child, its aria-label, title and placeholder. They follow when the language is changed.
 */

import {onLanguage, text} from "./i18n.js";

/** @typedef {string | [string, Record<string, any>]} TextRef */

/** What an element shows in the language of the moment. @type {WeakMap<Element, Map<string, TextRef>>} */
const texts = new WeakMap();
const BOUND = "data-t";
const ATTRIBUTES = {label: "aria-label", hint: "title", placeholder: "placeholder"};

/**
 * @param {string} tag @param {Record<string, any>} [props] @param {(Node|string|null|undefined|false)[]} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const child of children) if (child) element.append(child);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "t" || name in ATTRIBUTES) say(element, name, value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else if (name === "class") element.className = value;
    else if (name in PROPERTIES) /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

const PROPERTIES = {value: 1, checked: 1, disabled: 1, hidden: 1, muted: 1, srcObject: 1};

/** Have an element show a text, in whatever language. @param {Element} element @param {string} where @param {TextRef} what */
export function say(element, where, what) {
  const bound = texts.get(element) ?? new Map();
  texts.set(element, bound.set(where, what));
  element.setAttribute(BOUND, "");
  show(element, where, what);
}

/** @param {Element} element @param {string} where @param {TextRef} what */
function show(element, where, what) {
  const shown = Array.isArray(what) ? text(...what) : text(what);
  if (where !== "t") {
    element.setAttribute(ATTRIBUTES[/** @type {keyof ATTRIBUTES} */ (where)], shown);
    return;
  }
  const last = element.lastChild;
  if (last instanceof Text) last.data = shown;
  else element.append(shown);
}

onLanguage(() => {
  for (const element of document.querySelectorAll(`[${BOUND}]`)) {
    for (const [where, what] of texts.get(element) ?? []) show(element, where, what);
  }
});

/** Put these in place of what an element has. @param {Element} element @param {(Node|string|null|undefined|false)[]} children */
export function fill(element, ...children) {
  element.replaceChildren(.../** @type {(Node|string)[]} */ (children.filter(Boolean)));
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  back: "M15 5l-7 7 7 7",
  chat: "M4 5h16v11H9l-5 4z",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  danmaku: "M3 6h11M3 12h18M8 18h13",
  down: "M12 5v14M6 13l6 6 6-6",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 100 6 3 3 0 000-6z",
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  globe: "M12 3a9 9 0 100 18 9 9 0 000-18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
  heart: "M12 20S4 15 4 9a4 4 0 018-1 4 4 0 018 1c0 6-8 11-8 11z",
  live: "M12 10a2 2 0 100 4 2 2 0 000-4zM7 7a7 7 0 000 10M17 7a7 7 0 010 10",
  moon: "M20 14A8 8 0 0110 4a8 8 0 1010 10z",
  mute: "M4 9v6h4l5 4V5L8 9zM17 9l5 6M22 9l-5 6",
  send: "M4 12l16-8-6 16-3-7z",
  sound: "M4 9v6h4l5 4V5L8 9zM17 9a4 4 0 010 6",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5",
  user: "M12 4a4 4 0 100 8 4 4 0 000-8zM4 21a8 8 0 0116 0",
};

/** @param {keyof ICONS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A hue that stays the same for the same name or number. @param {string|number} of */
export function hueOf(of) {
  let hash = 2166136261;
  for (const char of String(of)) hash = Math.imul(hash ^ /** @type {number} */ (char.codePointAt(0)), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519); // neighbours in number are to be far apart in colour
  hash = Math.imul(hash ^ (hash >>> 13), 3266489917);
  return ((hash ^ (hash >>> 16)) >>> 0) % 360;
}

/** @param {string} name */
function initial(name) {
  const [first] = Array.from(name.replace(/[\s\p{P}\p{S}]/gu, "") || name.trim() || "·");
  return first.toUpperCase();
}

/**
 * The picture of somebody, or one made from the name. @param {{name: string, userId: number|string, url?: string|null}} who
 */
export function avatar({name, userId, url}) {
  const made = h("span", {class: "avatar", "aria-hidden": "true", style: {"--hue": String(hueOf(userId))}}, initial(name));
  return withImage(made, url);
}

/** The cover of a room, or one made from its name. @param {{name: string, url?: string|null}} room */
export function cover({name, url}) {
  const hue = hueOf(name);
  const made = h(
    "div", {class: "cover", "aria-hidden": "true", style: {"--hue": String(hue), "--turn": `${hue % 7 * 14 - 42}deg`}},
    h("span", {class: "cover-glyph"}, initial(name.replace(/^主播-?/, ""))),
  );
  return withImage(made, url);
}

/** @param {HTMLElement} element @param {string|null|undefined} url */
function withImage(element, url) {
  if (url && !url.startsWith("data:")) { // a drawn one of the server says that there is none
    const image = h("img", {alt: "", src: url, loading: "lazy", decoding: "async", referrerpolicy: "no-referrer"});
    image.addEventListener("error", () => image.remove());
    element.append(image);
  }
  return element;
}
