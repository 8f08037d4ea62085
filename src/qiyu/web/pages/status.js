// @ts-check
/** How the connection stands, where that is not well: one line below the head. */

import {fill, h, say} from "./dom.js";
import {session} from "./session.js";

const PATIENCE_MS = 700; // a connection that is back at once was hardly away

export function statusBar() {
  const element = h("div", {class: "status", hidden: true});
  /** @type {any} */ let timer = null;
  /** @type {any} */ let patience = null;

  session.on("state", (state) => {
    clearInterval(timer);
    clearTimeout(patience);
    const isFine = state.status === "online" || state.status === "stopped" || state.reason === "signedOut";
    if (isFine) {
      element.hidden = true;
      fill(element);
    } else if (element.hidden && state.status !== "ended") {
      patience = setTimeout(() => show(state), PATIENCE_MS);
    } else {
      show(state);
    }
  });

  return element;

  /** @param {import("./qiyu-client.js").State} state */
  function show(state) {
    element.hidden = false;
    element.className = `status ${state.status}`;
    const name = state.status === "ended" ? `state.${state.reason}` : `state.${state.status}`;
    const seconds = h("span", {class: "seconds", "aria-hidden": "true"});
    fill(
      element, h("span", {class: "status-text", role: "status", t: name}), state.retryAt ? seconds : null,
      state.status === "ended"
        ? state.reason === "replaced" && h("button", {class: "small", type: "button", t: "state.here", on: {click: () => session.client?.start()}})
        : state.retryAt && h("button", {class: "small", type: "button", t: "state.now", on: {click: () => session.client?.retryNow()}}),
    );
    const count = () => say(seconds, "t", ["state.in", {n: Math.max(0, Math.ceil((Number(state.retryAt) - Date.now()) / 1000))}]);
    if (!state.retryAt) return;
    count();
    timer = setInterval(count, 1000);
  }
}
