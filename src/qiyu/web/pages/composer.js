// @ts-check
/** Where something is written and sent: Enter sends, Shift+Enter makes a line. */

import {h, icon, say} from "./dom.js";

const MOST_CHARS = 2000; // what the server takes, as it is configured by default

/** @param {{label: import("./dom.js").TextRef, send: (content: string) => void}} options */
export function composer({label, send}) {
  const field = h("textarea", {rows: 1, maxlength: MOST_CHARS, label, placeholder: label, enterkeyhint: "send"});
  const button = h("button", {class: "round primary", type: "submit", label: "chat.send", hint: "chat.send"}, icon("send"));
  const element = h("form", {class: "composer"}, field, button);
  const submit = () => {
    const content = field.value.trim();
    if (!content || field.disabled) return;
    field.value = "";
    fit();
    send(content);
  };
  const fit = () => {
    field.style.setProperty("height", "auto");
    field.style.setProperty("height", `${Math.min(field.scrollHeight, 120)}px`);
  };
  element.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
    field.focus();
  });
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // an input method's Enter chooses a word
    event.preventDefault();
    submit();
  });
  field.addEventListener("input", fit);
  return {
    element,
    focus: () => field.focus(),
    enable() {
      field.disabled = button.disabled = false;
      say(field, "placeholder", label);
    },
    /** @param {import("./dom.js").TextRef} why */
    disable(why) {
      field.disabled = button.disabled = true;
      say(field, "placeholder", why);
    },
  };
}
