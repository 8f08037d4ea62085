// @ts-check
/**
 * Direct messages: with whom, the last one, and which are unread.
 *
 * A message is acknowledged when it is read, and not when it comes: so the server keeps what is unread, and brings it
 * again at the next login, here or on another device. With whom one has talked is kept by the browser.
 */

import {call} from "./api.js";
import {Emitter} from "./emitter.js";
import {keep, kept} from "./keep.js";
import {readMessage} from "./qiyu-client.js";

const KEPT_CONVERSATIONS = 100;
const HISTORY_PAGE = 30;

/**
 * @typedef {object} Conversation
 * @property {number} userId
 * @property {string} name
 * @property {string} avatar
 * @property {string} content   the last message
 * @property {number} time
 * @property {boolean} isMine
 * @property {Set<string>} unread  msgIds
 */

/** Events: `change`; `message` with a `Message` of any conversation. */
export class Inbox extends Emitter {
  /** @type {Map<number, Conversation>} */
  #conversations = new Map();
  #client;
  #me;

  /** @param {import("./qiyu-client.js").QiyuClient} client @param {import("./session.js").User} me */
  constructor(client, me) {
    super();
    this.#client = client;
    this.#me = me;
    this.#load();
    client.on("message", (message) => {
      if (message.kind === "direct") this.#received(message);
    });
  }

  /** The newest first. */
  get conversations() {
    return [...this.#conversations.values()].sort((a, b) => b.time - a.time);
  }

  get unread() {
    let count = 0;
    for (const conversation of this.#conversations.values()) count += conversation.unread.size;
    return count;
  }

  /** @param {number} userId */
  find(userId) {
    return this.#conversations.get(userId);
  }

  /** All that came from this user was seen. @param {number} userId */
  read(userId) {
    const conversation = this.#conversations.get(userId);
    if (!conversation?.unread.size) return;
    for (const msgId of conversation.unread) this.#client.ack(msgId);
    conversation.unread.clear();
    this.emit("change");
  }

  /** @param {{userId: number, name: string, avatar: string}} to @param {string} content */
  send(to, content) {
    const outgoing = this.#client.sendDirect(to.userId, content);
    this.#last(to, content, outgoing.createTime, true);
    return outgoing;
  }

  /** What was said with this user before. @param {number} userId @param {string} [beforeMsgId] */
  async history(userId, beforeMsgId = "") {
    const page = await call("im/history", {objectId: userId, limit: HISTORY_PAGE, ...(beforeMsgId && {beforeMsgId})});
    return {messages: page.messages.map(readMessage).filter(Boolean), hasMore: page.hasMore};
  }

  /** @param {import("./qiyu-client.js").Message} message */
  #received(message) {
    if (message.senderId === this.#me.userId) {
      this.#client.ack(message.msgId); // one writes to oneself
      return;
    }
    const from = {userId: message.senderId, name: message.senderName, avatar: message.senderAvatar};
    const conversation = this.#last(from, message.content, message.createTime, false);
    conversation.unread.add(message.msgId);
    this.emit("message", message);
    this.emit("change");
  }

  /**
   * @param {{userId: number, name: string, avatar: string}} who
   * @param {string} content @param {number} time @param {boolean} isMine
   */
  #last(who, content, time, isMine) {
    const before = this.#conversations.get(who.userId);
    const unread = before?.unread ?? new Set();
    const isNewest = !before || time >= before.time;
    const conversation = isNewest
      ? {userId: who.userId, name: who.name || before?.name || String(who.userId), avatar: who.avatar, content, time, isMine, unread}
      : before;
    this.#conversations.set(who.userId, conversation);
    this.#store();
    this.emit("change");
    return conversation;
  }

  #load() {
    try {
      for (const each of JSON.parse(kept(`conversations.${this.#me.userId}`) ?? "[]")) {
        this.#conversations.set(Number(each.userId), {
          userId: Number(each.userId), name: String(each.name), avatar: String(each.avatar ?? ""),
          content: String(each.content ?? ""), time: Number(each.time ?? 0), isMine: each.isMine === true,
          unread: new Set(),
        });
      }
    } catch {
      // not what we wrote
    }
  }

  #store() {
    const all = this.conversations;
    for (const old of all.slice(KEPT_CONVERSATIONS)) if (!old.unread.size) this.#conversations.delete(old.userId);
    const shown = all.slice(0, KEPT_CONVERSATIONS).map(({unread: _unread, ...each}) => (
      {...each, content: each.content.slice(0, 100)}));
    keep(`conversations.${this.#me.userId}`, JSON.stringify(shown));
  }
}

