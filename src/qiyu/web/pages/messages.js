// @ts-check
/** Direct messages, in a drawer at the side of any view: with whom, and what was said. */

import {ChatList} from "./chat-list.js";
import {composer} from "./composer.js";
import {avatar, fill, h, icon, say} from "./dom.js";
import {onLanguage, time} from "./i18n.js";
import {messageRow} from "./rows.js";
import {session} from "./session.js";

/** @typedef {{userId: number, name: string, avatar: string}} Who */

/** @type {Drawer|null} */
let drawer = null;

/** Show with whom there are messages, or hide them. */
export function toggleInbox() {
  if (drawer) drawer.close();
  else open().showList();
}

/** @param {Who} who */
export function openConversation(who) {
  open().showConversation(who);
}

export function closeMessages() {
  drawer?.close();
}

function open() {
  drawer ??= new Drawer(() => {
    drawer = null;
  });
  return drawer;
}

class Drawer {
  #undo;
  #onClose;
  /** @type {Conversation|null} */ #conversation = null;
  #opener = document.activeElement;
  #title = h("h2", {});
  #back = h("button", {class: "round quiet", type: "button", label: "back", hidden: true, on: {click: () => this.showList()}}, icon("back"));
  #body = h("div", {class: "drawer-body"});

  /** @param {() => void} onClose */
  constructor(onClose) {
    this.#onClose = onClose;
    const close = h("button", {class: "round quiet", type: "button", label: "close", on: {click: () => this.close()}}, icon("close"));
    this.element = h(
      "aside", {class: "drawer", label: "inbox.title", on: {keydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Escape" && !event.isComposing) this.close();
      }}},
      h("div", {class: "drawer-head"}, this.#back, this.#title, close), this.#body,
    );
    this.#undo = [
      session.on("inbox", () => this.#conversation ?? this.showList()),
      session.on("user", () => this.close()),
      onLanguage(() => this.#conversation ?? this.showList()),
    ];
    document.body.append(this.element);
    close.focus();
  }

  showList() {
    this.#conversation?.close();
    this.#conversation = null;
    this.#back.hidden = true;
    fill(this.#title);
    say(this.#title, "t", "inbox.title");
    const all = session.inbox?.conversations ?? [];
    const hadFocus = this.#body.contains(document.activeElement);
    fill(this.#body, all.length
      ? h("ul", {class: "conversations"}, ...all.map((each) => this.#entry(each)))
      : h("div", {class: "empty"}, h("div", {class: "empty-picture", "aria-hidden": "true"}, icon("chat")), h("p", {class: "muted", t: "inbox.empty"})));
    if (hadFocus) this.#body.querySelector("button")?.focus();
  }

  /** @param {Who} who */
  showConversation(who) {
    this.#conversation?.close();
    this.#back.hidden = false;
    fill(this.#title, who.name);
    this.#conversation = new Conversation(who);
    fill(this.#body, this.#conversation.element);
    this.#conversation.focus();
  }

  close() {
    this.#conversation?.close();
    this.#conversation = null;
    for (const each of this.#undo) each();
    this.element.remove();
    this.#onClose();
    if (this.#opener instanceof HTMLElement) this.#opener.focus();
  }

  /** @param {import("./inbox.js").Conversation} each */
  #entry(each) {
    return h(
      "li", {},
      h("button", {class: "conversation", type: "button", on: {click: () => this.showConversation(each)}},
        avatar({...each, url: each.avatar}),
        h("span", {class: "conversation-text"},
          h("span", {class: "conversation-name"}, h("strong", {}, each.name), h("time", {}, time(each.time))),
          h("span", {class: "conversation-last"}, each.isMine ? h("span", {t: "inbox.you"}) : null, each.content)),
        each.unread.size ? h("span", {class: "unread", role: "img", label: ["inbox.unread", {n: each.unread.size}]}, each.unread.size > 99 ? "99+" : String(each.unread.size)) : null),
    );
  }
}

class Conversation {
  #who;
  #list = new ChatList({row: (item) => messageRow(item, {time: time(item.time)}), onOlder: () => this.#older(), label: "direct.label"});
  #compose = composer({label: "direct.say", send: (content) => this.#send(content)});
  #undo;
  #isClosed = false;

  /** @param {Who} who */
  constructor(who) {
    this.#who = who;
    this.element = h("div", {class: "direct"}, this.#list.element, this.#compose.element);
    const seen = () => document.hidden || session.inbox?.read(who.userId);
    document.addEventListener("visibilitychange", seen);
    this.#undo = [
      session.on("message", (message) => {
        if (message.kind !== "direct" || message.senderId !== who.userId) return;
        this.#list.add(itemOf(message));
        seen();
      }),
      session.on("outgoing", (outgoing) => {
        if (this.#list.find(`c:${outgoing.clientMsgId}`)) this.#list.add(this.#own(outgoing));
      }),
      () => document.removeEventListener("visibilitychange", seen),
    ];
    this.#older().then(seen);
  }

  focus() {
    this.#compose.focus();
  }

  close() {
    this.#isClosed = true;
    for (const each of this.#undo) each();
  }

  async #older() {
    try {
      const {messages, hasMore} = await /** @type {any} */ (session.inbox).history(this.#who.userId, this.#list.firstMsgId);
      if (!this.#isClosed) this.#list.addOlder(messages.map(itemOf), hasMore);
    } catch {
      this.#list.olderFailed();
    }
  }

  /** @param {string} content */
  #send(content) {
    const outgoing = session.inbox?.send(this.#who, content);
    if (!outgoing) return;
    this.#list.add(this.#own(outgoing));
    this.#list.toEnd();
  }

  /** @param {import("./qiyu-client.js").OutgoingMessage} outgoing */
  #own(outgoing) {
    const {userId = 0, nickName = "", avatar: url = ""} = session.user ?? {};
    return {
      key: `c:${outgoing.clientMsgId}`, msgId: outgoing.msgId, userId, name: nickName, avatar: url, content: outgoing.content,
      time: outgoing.createTime, isMine: true, status: outgoing.status, error: outgoing.error, retry: () => outgoing.retry(),
    };
  }
}

/** @param {import("./qiyu-client.js").Message} message */
function itemOf(message) {
  const isMine = message.senderId === session.user?.userId;
  return {
    key: isMine && message.clientMsgId ? `c:${message.clientMsgId}` : message.msgId,
    msgId: message.msgId, userId: message.senderId, name: message.senderName, avatar: message.senderAvatar,
    content: message.content, time: message.createTime, isMine, status: "stored",
  };
}
