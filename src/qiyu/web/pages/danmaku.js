// @ts-check
/** Messages that fly over the picture, in lanes, so that none covers another; when all lanes are taken, one is left out. */

import {h} from "./dom.js";

const FLIGHT_MS = 8000;
const LANE = 38; // pixels
const MOST_LANES = 8;
const MOST_FLYING = 40;
const MOST_CHARS = 60;
const GAP = 40;

export class Danmaku {
  /** Of the last one in each lane: when all of it has come in, and when it has left. @type {{isIn: number, isOut: number}[]} */
  #lanes = [];
  #isOn = false;

  constructor() {
    this.element = h("div", {class: "danmaku", "aria-hidden": "true"});
  }

  /** @param {boolean} isOn */
  set isOn(isOn) {
    this.#isOn = isOn;
    if (!isOn) this.element.replaceChildren();
  }

  /** @param {string} content @param {boolean} [isMine] */
  fly(content, isMine = false) {
    if (!this.#isOn || document.hidden || this.element.childElementCount >= MOST_FLYING) return;
    const text = content.replace(/\s+/g, " ").trim();
    if (!text) return;
    const shown = text.length > MOST_CHARS ? `${text.slice(0, MOST_CHARS)}…` : text;
    const width = this.element.clientWidth;
    const lane = this.#freeLane(width, estimate(shown));
    if (lane < 0 || !width) return;
    const flyer = h("span", {class: isMine ? "flyer mine" : "flyer", style: {top: `${lane * LANE + 12}px`}}, shown);
    this.element.append(flyer);
    // Across the layer's width (100cqw), and its own.
    const frames = [{transform: "translateX(0)"}, {transform: "translateX(calc(-100cqw - 100%))"}];
    flyer.animate(frames, {duration: FLIGHT_MS, easing: "linear"}).finished.then(() => flyer.remove(), () => {});
  }

  /**
   * A lane in which one of this width overtakes nobody; -1: none.
   * @param {number} width @param {number} own
   */
  #freeLane(width, own) {
    const now = performance.now();
    const count = Math.max(1, Math.min(MOST_LANES, Math.floor(this.element.clientHeight * 0.6 / LANE)));
    const crossing = FLIGHT_MS * width / (width + own); // until it touches the far side
    for (let lane = 0; lane < count; lane++) {
      const before = this.#lanes[lane];
      if (before && (now < before.isIn || now + crossing < before.isOut)) continue;
      this.#lanes[lane] = {isIn: now + FLIGHT_MS * (own + GAP) / (width + own), isOut: now + FLIGHT_MS};
      return lane;
    }
    return -1;
  }
}

/** Its width in pixels, about: a Chinese character is twice a Latin letter. @param {string} text */
function estimate(text) {
  let width = 24;
  for (const char of text) width += /** @type {number} */ (char.codePointAt(0)) > 0x2e80 ? 19 : 10;
  return width;
}
