// @ts-check
/** The rows of a list of messages. */

import {avatar, h, hueOf} from "./dom.js";

/**
 * @param {any} item @param {{onName?: () => void, time: string}} how
 */
export function messageRow(item, {onName, time}) {
  const name = item.name || String(item.userId);
  const row = h(
    "li", {class: `row ${item.status}${item.isMine ? " mine" : ""}`, style: {"--hue": String(hueOf(item.userId))}},
    avatar({name, userId: item.userId, url: item.avatar}),
    h("div", {class: "bubble"},
      onName ? h("button", {class: "name", type: "button", on: {click: onName}}, name) : h("span", {class: "name"}, name),
      h("span", {class: "content"}, item.content),
      item.isMine ? mark(item) : null),
  );
  row.title = time;
  if (item.msgId) row.dataset.msgId = item.msgId;
  return row;
}

/** @param {any} item */
function mark(item) {
  if (item.status === "failed") {
    const why = item.error?.code === 403 ? "chat.failed.403" : item.error?.code === 507 ? "chat.failed.507" : "chat.failed";
    return h("span", {class: "mark"}, h("span", {t: why}), " ", h("button", {class: "link", type: "button", t: "retry", on: {click: item.retry}}));
  }
  return h("span", {class: "mark", role: "img", label: item.status === "pending" ? "chat.pending" : "chat.stored"});
}

/** @param {import("./dom.js").TextRef} what */
export function noticeRow(what) {
  return h("li", {class: "row notice", t: what});
}
