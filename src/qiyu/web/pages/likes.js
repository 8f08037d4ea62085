// @ts-check
/** Hearts that rise where somebody likes the room; none where less motion is wanted. */

import {h, icon} from "./dom.js";

const MOST = 16;
const less = matchMedia("(prefers-reduced-motion: reduce)");

/** @param {Element} layer @param {number} count */
export function burst(layer, count) {
  if (less.matches || document.hidden) return;
  for (let i = 0; i < Math.min(count, 5) && layer.childElementCount < MOST; i++) {
    const heart = h("span", {class: "heart", style: {"--hue": String(Math.floor(Math.random() * 60 + 345) % 360)}}, icon("heart"));
    layer.append(heart);
    const drift = Math.random() * 60 - 30;
    const frames = [
      {transform: "translate(0, 0) scale(.4)", opacity: 0},
      {transform: `translate(${drift / 3}px, -30px) scale(1.1)`, opacity: 1, offset: 0.2},
      {transform: `translate(${drift}px, -150px) scale(.9) rotate(${drift / 2}deg)`, opacity: 0},
    ];
    heart.animate(frames, {duration: 1300 + Math.random() * 500, delay: i * 70, easing: "ease-out", fill: "backwards"})
      .finished.then(() => heart.remove(), () => {});
  }
}
