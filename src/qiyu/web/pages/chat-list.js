// @ts-check
/**
 * A list of messages that stays smooth and bounded, however many come.
 *
 * What comes waits for the next frame, and a frame draws a few dozen at most. The list shows the newest `LIMIT`; what
 * would have been pushed out before it was ever seen is not drawn at all. Whoever has scrolled up is left alone: what
 * comes meanwhile waits behind a pill that says how many there are.
 */

import {h, icon, say} from "./dom.js";
import {compareMsgIds} from "./qiyu-client.js";

const LIMIT = 300;
const OLDEST = 1000; // rows, when somebody reads back
const ROWS_A_FRAME = 40;
const NEAR_END = 48; // pixels

/**
 * @typedef {object} Item
 * @property {string} key       the same for the same message, wherever it comes from
 * @property {string} [msgId]   empty until it is stored
 */

export class ChatList {
  /** @type {Map<string, {item: any, row: HTMLElement}>} in the order shown */
  #rows = new Map();
  /** @type {Map<string, any>} */
  #waiting = new Map();
  #missed = 0; // pushed out of those that wait
  #following = true;
  #frame = 0;
  #loading = false;
  #row;
  #onOlder;

  /**
   * @param {object} options
   * @param {(item: any) => HTMLElement} options.row  makes the element of an item
   * @param {() => void} options.onOlder  somebody wants what was before the first
   * @param {import("./dom.js").TextRef} options.label
   */
  constructor({row, onOlder, label}) {
    this.#row = row;
    this.#onOlder = onOlder;
    this.older = h("button", {class: "older quiet", type: "button", hidden: true, t: "chat.older", on: {click: () => this.#wantOlder()}});
    this.rows = h("ol", {class: "chat-rows"});
    this.scroller = h(
      "div", {class: "chat-scroll", tabindex: "0", role: "log", "aria-live": "off", label, on: {scroll: () => this.#scrolled()}},
      this.older, this.rows,
    );
    this.pill = h("button", {class: "pill", type: "button", hidden: true, on: {click: () => this.toEnd()}}, icon("down"), "");
    this.element = h("div", {class: "chat-list"}, this.scroller, this.pill);
    new ResizeObserver(() => this.#following && this.#scrollToEnd()).observe(this.scroller);
  }

  /** Show an item, or show it anew; one with a msgId stands where that belongs. @param {Item & Record<string, any>} item */
  add(item) {
    const shown = this.#rows.get(item.key);
    if (shown) {
      shown.item = item;
      const row = this.#row(item);
      shown.row.replaceWith(row);
      shown.row = row;
      return;
    }
    this.#waiting.set(item.key, item);
    if (this.#waiting.size > LIMIT) {
      this.#waiting.delete(/** @type {string} */ (this.#waiting.keys().next().value));
      this.#missed++;
    }
    this.#wake();
  }

  /** @param {string} key */
  remove(key) {
    this.#waiting.delete(key);
    this.#rows.get(key)?.row.remove();
    this.#rows.delete(key);
  }

  /** The item with this key, shown or about to be. @param {string} key */
  find(key) {
    return this.#rows.get(key)?.item ?? this.#waiting.get(key);
  }

  /** The newest item that is shown or about to be. */
  get last() {
    let last;
    for (last of this.#waiting.values());
    if (last) return last;
    for (const each of this.#rows.values()) last = each.item;
    return last;
  }

  /** The msgId of the oldest message shown. */
  get firstMsgId() {
    for (const {item} of this.#rows.values()) if (item.msgId) return item.msgId;
    return "";
  }

  /** What was before the first, oldest first. @param {(Item & Record<string, any>)[]} items @param {boolean} hasMore */
  addOlder(items, hasMore) {
    this.#loading = false;
    const fresh = items.filter((item) => !this.find(item.key));
    const before = this.scroller.scrollHeight;
    const made = fresh.map((item) => [item.key, {item, row: this.#row(item)}]);
    this.rows.prepend(...made.map(([, each]) => /** @type {any} */ (each).row));
    this.#rows = new Map(/** @type {any} */ ([...made, ...this.#rows]));
    this.older.hidden = !hasMore || this.#rows.size >= OLDEST;
    if (this.#following) this.#scrollToEnd();
    else this.scroller.scrollTop += this.scroller.scrollHeight - before;
  }

  clear() {
    this.#rows.clear();
    this.#waiting.clear();
    this.#missed = 0;
    this.rows.replaceChildren();
    this.#following = true;
    this.#showPill();
  }

  /** Go to the newest, and stay there. */
  toEnd() {
    this.#following = true;
    if (this.#missed) { // there is a gap: what stands above it would look as if it came just before
      this.#rows.clear();
      this.rows.replaceChildren();
      this.#missed = 0;
      this.older.hidden = false;
    }
    this.#wake();
    this.#scrollToEnd();
    this.#showPill();
  }

  #wake() {
    // A tab that nobody sees has no frames; what waits is bounded anyway.
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    if (!this.#following) {
      this.#showPill();
      return;
    }
    const fragment = document.createDocumentFragment();
    let count = 0;
    for (const [key, item] of this.#waiting) {
      if (count++ === ROWS_A_FRAME) break;
      this.#waiting.delete(key);
      const each = {item, row: this.#row(item)};
      const later = this.#firstLaterThan(item.msgId);
      if (later === null) {
        fragment.append(each.row);
        this.#rows.set(key, each);
      } else {
        this.rows.append(fragment);
        this.#insertBefore(later, key, each);
      }
    }
    this.rows.append(fragment);
    this.#missed = 0;
    this.#trim();
    this.#scrollToEnd();
    if (this.#waiting.size) this.#wake();
  }

  /** The row before which a message belongs that comes late; null: at the end. @param {string|undefined} msgId */
  #firstLaterThan(msgId) {
    if (!msgId || !this.#rows.size) return null;
    const last = /** @type {any} */ (this.#lastWithId());
    if (!last || compareMsgIds(last, msgId) < 0) return null;
    for (const [key, {item}] of this.#rows) if (item.msgId && compareMsgIds(item.msgId, msgId) > 0) return key;
    return null;
  }

  #lastWithId() {
    let row = this.rows.lastElementChild;
    while (row && !row.dataset.msgId) row = row.previousElementSibling;
    return row?.dataset.msgId ?? "";
  }

  /** @param {string} before @param {string} key @param {{item: any, row: HTMLElement}} each */
  #insertBefore(before, key, each) {
    const entries = [...this.#rows];
    const index = entries.findIndex(([other]) => other === before);
    this.rows.insertBefore(each.row, entries[index][1].row);
    entries.splice(index, 0, [key, each]);
    this.#rows = new Map(entries);
  }

  #trim() {
    let excess = this.#rows.size - LIMIT;
    if (excess <= 0) return;
    for (const [key, {row}] of this.#rows) {
      if (excess-- <= 0) break;
      row.remove();
      this.#rows.delete(key);
    }
    this.older.hidden = false;
  }

  #wantOlder() {
    if (this.#loading) return;
    this.#loading = true;
    this.#following = false;
    this.#onOlder();
  }

  /** Nothing came of it: it may be asked for again. */
  olderFailed() {
    this.#loading = false;
  }

  #scrolled() {
    const {scrollTop, scrollHeight, clientHeight} = this.scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (isAtEnd === this.#following) return;
    this.#following = isAtEnd;
    if (isAtEnd && this.#waiting.size) this.toEnd();
  }

  #scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #showPill() {
    const count = this.#waiting.size + this.#missed;
    this.pill.hidden = this.#following || !count;
    if (!this.pill.hidden) say(this.pill, "t", ["chat.new", {n: count}]);
  }
}
