// @ts-check
/** A living room: the stage, what flies over it, the chat beside it, and the anchor's controls. */

import {anchorPanel} from "./anchor.js";
import {CallFailed, call} from "./api.js";
import {ChatList} from "./chat-list.js";
import {composer} from "./composer.js";
import {Danmaku} from "./danmaku.js";
import {openCard, openSignIn} from "./dialogs.js";
import {avatar, cover, fill, h, icon, say} from "./dom.js";
import {number, text, time} from "./i18n.js";
import {keep, kept} from "./keep.js";
import {burst} from "./likes.js";
import {openConversation} from "./messages.js";
import {readMessage} from "./qiyu-client.js";
import {messageRow, noticeRow} from "./rows.js";
import {session} from "./session.js";
import {Stage} from "./stage.js";

const HISTORY = 50;
const SAID_EVERY_MS = 8000; // to screen readers
const FOLD_MS = 20_000; // who comes and goes within it shares a line

/** @param {number} roomId @param {(hash: string) => void} go */
export function roomView(roomId, go) {
  /** @type {(() => void)[]} */
  const undo = [];
  let isClosed = false;
  let isAnchor = false;
  /** @type {Set<number>} */
  const muted = new Set();
  let likes = 0;
  let ownLikes = 0; // on their way: they are not yet in the room's count
  /** @type {{key: string, names: string[], more: number, kind: string, at: number}|null} */
  let fold = null;
  let unsaid = 0;
  let lastSaid = "";

  const danmaku = new Danmaku();
  const stage = new Stage(danmaku.element);
  const hearts = h("div", {class: "hearts", "aria-hidden": "true"});
  const title = h("h1", {}, "");
  const anchorName = h("button", {class: "link", type: "button"}, "");
  const anchorAvatar = h("span", {});
  const online = counter("eye", "room.online");
  const liked = counter("heart", "home.likes");
  const likeButton = h("button", {class: "like", type: "button", label: "room.like", hint: "room.like", on: {click: like}}, icon("heart"));
  const panel = h("div", {class: "anchor-place"});
  const said = h("p", {class: "unseen", role: "status"});
  const list = new ChatList({row, onOlder: loadOlder, label: "chat.label"});
  const compose = composer({label: "chat.say", send: say_});
  const chat = h("section", {class: "chat", label: "chat.title"}, h("h2", {class: "unseen", t: "chat.title"}), list.element, said, compose.element);
  const about_ = h("div", {class: "room-about", hidden: true},
    anchorAvatar,
    h("div", {class: "room-names"}, title, h("p", {}, anchorName)),
    h("div", {class: "room-counts"}, online.element, liked.element),
    h("div", {class: "like-place"}, hearts, likeButton));
  const element = h(
    "main", {class: "room", tabindex: "-1"},
    h("div", {class: "room-main"},
      stage.element,
      about_,
      panel),
    chat,
  );

  const isFlying = kept("danmaku") !== "off";
  danmaku.isOn = isFlying && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  stage.addSwitch("danmaku", "stage.danmaku", isFlying, (isOn) => {
    danmaku.isOn = isOn;
    keep("danmaku", isOn ? "on" : "off");
  });
  compose.disable("chat.wait");

  listen("message", (message) => {
    if (message.roomId === roomId) received(message);
  });
  listen("event", (event) => {
    if (Number(event.roomId) === roomId) happened(event);
  });
  listen("entered", (entered) => {
    if (entered.roomId === roomId) onEntered(entered);
  });
  listen("roomRefused", (refused) => {
    if (refused.roomId === roomId) turnedAway(refused.code, refused.reason);
  });
  listen("outgoing", (outgoing) => {
    const item = list.find(`c:${outgoing.clientMsgId}`);
    if (item) list.add(ownItem(outgoing));
  });
  listen("user", () => {
    if (!isClosed) begin();
  });
  const saying = setInterval(announce, SAID_EVERY_MS);
  begin();

  return {
    element,
    title: () => title.textContent || text("room.title"),
    close() {
      isClosed = true;
      for (const each of undo) each();
      clearInterval(saying);
      stage.close();
      session.client?.leave();
    },
  };

  /** @param {string} name @param {(event: any) => void} listener */
  function listen(name, listener) {
    undo.push(session.on(name, listener));
  }

  async function begin() {
    if (!session.user) {
      compose.disable("chat.signin");
      stage.show({title: "room.signin", action: "sign.in", act: () => openSignIn()});
      return;
    }
    try {
      const config = await call("living/anchorConfig", {roomId});
      if (isClosed) return;
      if (config.roomId < 1) {
        turnedAway(404, "");
        return;
      }
      about(config);
      await session.client?.enter(roomId);
    } catch (error) {
      if (isClosed || !(error instanceof CallFailed)) return; // a refused room has an event of its own
      stage.show({title: "room.problem", action: "retry", act: begin});
    }
  }

  /** @param {any} config */
  function about(config) {
    isAnchor = config.isAnchor;
    const anchor = {userId: config.anchorId, name: config.anchorNickName ?? String(config.anchorId), avatar: config.avatar};
    about_.hidden = false;
    title.textContent = config.roomName;
    document.title = `${config.roomName} · qiyu`;
    anchorName.textContent = anchor.name;
    anchorName.onclick = () => card(anchor);
    fill(anchorAvatar, avatar({...anchor, url: anchor.avatar}));
    stage.set({cover: cover({name: config.roomName, url: config.anchorImg}), playUrl: config.playUrl, isOnAir: config.onAir});
    stage.hide();
    if (isAnchor) fill(panel, anchorPanel(config, () => go("#/")));
  }

  /** @param {any} entered */
  async function onEntered(entered) {
    online.set(entered.online);
    compose.enable();
    stage.hide();
    if (entered.recovered === true) return;
    if (entered.recovered === false) list.clear(); // something is missing, and where is not known
    try {
      const page = await call("im/history", {roomId, limit: HISTORY});
      if (!isClosed) list.addOlder(page.messages.map(readMessage).filter(Boolean).map(itemOf), page.hasMore);
    } catch {
      // the room goes on without what was said before
    }
  }

  async function loadOlder() {
    try {
      const page = await call("im/history", {roomId, limit: HISTORY, beforeMsgId: list.firstMsgId});
      if (!isClosed) list.addOlder(page.messages.map(readMessage).filter(Boolean).map(itemOf), page.hasMore);
    } catch {
      list.olderFailed();
    }
  }

  /** @param {import("./qiyu-client.js").Message} message */
  function received(message) {
    fold = null;
    list.add(itemOf(message));
    danmaku.fly(message.content);
    unsaid++;
    lastSaid = `${message.senderName}: ${message.content}`;
  }

  /** @param {string} content */
  function say_(content) {
    const outgoing = session.client?.sendRoom(content);
    if (!outgoing) return;
    fold = null;
    list.add(ownItem(outgoing));
    list.toEnd();
    danmaku.fly(content, true);
  }

  function like() {
    if (!session.client?.roomId) return;
    session.client.like();
    ownLikes++;
    liked.set(likes + ownLikes);
    burst(hearts, 1);
  }

  /** @param {any} event */
  function happened(event) {
    const isMe = Number(event.userId) === session.user?.userId;
    switch (event.event) {
      case "enter":
      case "leave":
        if (event.online) online.set(event.online);
        folded(event.event, event.senderName || String(event.userId));
        break;
      case "count": {
        online.set(event.online);
        const more = event.goodNum - likes - ownLikes;
        if (likes && more > 0) burst(hearts, more);
        likes = event.goodNum;
        ownLikes = 0;
        liked.set(likes);
        break;
      }
      case "closed":
        compose.disable("chat.closed");
        stage.close();
        stage.show({title: "room.closed", action: "room.home", act: () => go("#/")});
        break;
      case "onAir":
        stage.set({isOnAir: true});
        break;
      case "offAir":
        stage.set({isOnAir: false});
        break;
      case "muted":
        muted.add(Number(event.userId));
        notice(isMe ? "event.muted.me" : ["event.muted", {name: event.senderName || event.userId}]);
        break;
      case "unmuted":
        muted.delete(Number(event.userId));
        notice(isMe ? "event.unmuted.me" : ["event.unmuted", {name: event.senderName || event.userId}]);
        break;
      case "removed":
        if (isMe) turnedAway(403, "");
        else notice(["event.removed", {name: event.senderName || event.userId}]);
        break;
    }
  }

  /** @param {number} code @param {string} reason */
  function turnedAway(code, reason) {
    compose.disable(code === 403 ? "chat.removed" : "chat.closed");
    stage.close();
    const title = code === 403 ? "room.removed" : code === 404 ? "room.none" : "room.problem";
    stage.show({title, detail: code === 403 || code === 404 ? "" : reason, action: "room.home", act: () => go("#/")});
  }

  /** @param {string} kind @param {string} name */
  function folded(kind, name) {
    const now = Date.now();
    if (fold && fold.kind === kind && now - fold.at < FOLD_MS && list.find(fold.key)) {
      if (fold.names.length < 2 && !fold.names.includes(name)) fold.names.push(name);
      else if (!fold.names.includes(name)) fold.more++;
    } else {
      fold = {key: `n:${now}:${Math.random()}`, names: [name], more: 0, kind, at: now};
    }
    const names = fold.names.join("、");
    list.add({key: fold.key, notice: fold.more ? [`event.${kind}.many`, {names, n: fold.more}] : [`event.${kind}`, {names}]});
  }

  /** @param {import("./dom.js").TextRef} what */
  function notice(what) {
    fold = null;
    list.add({key: `n:${Date.now()}:${Math.random()}`, notice: what});
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

  /** @param {import("./qiyu-client.js").OutgoingMessage} outgoing */
  function ownItem(outgoing) {
    const {userId = 0, nickName: name = "", avatar: url = ""} = session.user ?? {};
    return {
      key: `c:${outgoing.clientMsgId}`, msgId: outgoing.msgId, userId, name, avatar: url, content: outgoing.content,
      time: outgoing.createTime, isMine: true, status: outgoing.status, error: outgoing.error, retry: () => outgoing.retry(),
    };
  }

  /** @param {any} item */
  function row(item) {
    return item.notice ? noticeRow(item.notice) : messageRow(item, {onName: () => card(item), time: time(item.time)});
  }

  /** @param {{userId: number, name: string, avatar: string}} who */
  function card({userId, name, avatar: url}) {
    const who = {userId, name, avatar: url};
    openCard(who, {
      roomId, isAnchor, isMuted: muted.has(userId), isSelf: userId === session.user?.userId,
      write: () => openConversation(who), note: notice,
    });
  }

  function announce() {
    if (!unsaid || document.hidden) return;
    say(said, "t", ["chat.heard", {n: unsaid, last: lastSaid.slice(0, 120)}]);
    unsaid = 0;
  }
}

/** @param {"eye"|"heart"} picture @param {string} name */
function counter(picture, name) {
  const shown = h("b", {}, "0");
  const element = h("span", {class: "count", role: "img", label: [name, {n: 0}]}, icon(picture), shown);
  return {
    element,
    /** @param {number} n */
    set(n) {
      shown.textContent = number(n);
      say(element, "label", [name, {n}]);
    },
  };
}
