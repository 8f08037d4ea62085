// @ts-check
/** What the anchor has in the own room: where to send the picture, and the end of it. */

import {call} from "./api.js";
import {confirm} from "./dialogs.js";
import {fill, h, icon, say} from "./dom.js";

/** @param {any} config @param {() => void} leave */
export function anchorPanel(config, leave) {
  return h(
    "details", {class: "anchor", open: matchMedia("(min-width: 900px)").matches},
    h("summary", {}, h("h2", {t: "anchor.title"})),
    config.pushUrl
      ? h("div", {class: "anchor-push"}, h("p", {class: "muted", t: "anchor.push"}),
        secret("anchor.url", config.pushUrl, false), secret("anchor.key", config.streamKey, true))
      : null,
    h("p", {class: "muted", t: "anchor.people"}),
    h("button", {class: "stop", type: "button", t: "anchor.close", on: {
      click: () => confirm("anchor.close", "anchor.close.sure", "anchor.close", async () => {
        await call("living/closeLiving", {roomId: config.roomId});
        leave();
      }),
    }}),
  );
}

let count = 0;

/** A value to copy; a key is not shown on a stream of one's own screen. @param {string} name @param {string} value @param {boolean} isHidden */
function secret(name, value, isHidden) {
  const id = `copy-${++count}`;
  const field = h("input", {id, readonly: true, value, type: isHidden ? "password" : "text", autocomplete: "off", spellcheck: "false"});
  const copied = h("span", {class: "unseen", role: "status"});
  const button = h("button", {class: "round", type: "button", label: ["copy", {what: {t: name}}], hint: "copy.short"}, icon("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      say(copied, "t", "copied");
      button.classList.add("done");
    } catch { // no permission, or no TLS: then by hand
      field.type = "text";
      field.select();
    }
    setTimeout(() => {
      fill(copied);
      button.classList.remove("done");
    }, 2000);
  });
  return h("div", {class: "field"}, h("label", {for: id, t: name}), h("div", {class: "copy"}, field, button, copied));
}
