// @ts-check
/**
 * A client of a qiyu server over WebSocket, for browsers and for Node; nothing else is needed beside this file.
 *
 *     const client = new QiyuClient({userId, token: async () => ({token, url})});
 *     client.on("message", (message) => show(message));
 *     client.start();
 *     await client.enter(7);
 *     await client.sendRoom("hello").receipt;
 *
 * It logs in by packet, so that no token stands in any address; keeps the connection alive and makes it anew, with what
 * was missed; acknowledges many messages at once; hands on each message once; and sends what has no receipt again, under
 * the same clientMsgId, so that the server stores it once. What goes over the wire is in docs/protocol.md of qiyu.
 */

export const APP_ID = 10001;

/** What a packet is for. */
export const Code = Object.freeze({
  LOGIN: 1001, LOGOUT: 1002, BIZ: 1003, HEARTBEAT: 1004, ACK: 1005, ROOM: 1006, ERROR: 1007,
});

/** What a message is. */
export const BizCode = Object.freeze({ROOM_CHAT: 5555, DIRECT: 5556, ROOM_EVENT: 5557, LIKE: 5558});

const MAGIC = 18673;
const SEEN_MESSAGES = 4096; // what a catch-up (200) and an inbox (1,000) can bring twice, with room to spare
const ACKS_PER_PACKET = 500; // about 12 KiB; a body may have 64
const KEPT_ACKS = 5000;
const ACK_DELAY_MS = 100;
const LIKE_DELAY_MS = 300;
const LIKES_PER_PACKET = 50;
const UNANSWERED = 16; // messages on their way at once: well below what the server lets a connection send in a burst
const RESEND_SECONDS = 10;
const PAUSE_MS = 1500; // after "too fast" or "not now"
const PROBE_SECONDS = 5;
const STEADY_SECONDS = 30; // a connection that held so long was a good one: waiting begins anew
const MAX_RETRY_MS = 600_000; // the longest a server may send a client away for
const TOKENS_REFUSED = 3; // fresh ones, in a row
const KEPT_FAILED = 200;
const CLIENT_MSG_ID_CHARS = 64;

/** Codes of an ERROR after which the same message may be accepted a moment later. */
const PASSING = new Set([429, 503]);
/** Close codes that say the same as the LOGOUT packet before them, should that be lost. */
const FINAL_CLOSE = new Map([[4001, "replaced"], [4002, "signedOut"], [4003, "banned"]]);

/**
 * Why a message or a room was refused, or a message not confirmed.
 *
 * `code` is that of the ERROR packet (docs/protocol.md, Errors); 0 where the server did not say no: `reason` is then
 * "timeout", "queue full", "left" or why the client ended.
 */
export class Refused extends Error {
  /** @param {number} code @param {string} reason */
  constructor(code, reason) {
    super(code ? `${code}: ${reason}` : reason);
    this.name = "Refused";
    this.code = code;
    this.reason = reason;
  }
}

/**
 * @typedef {object} Message
 * @property {string} msgId       decimal, grows with time; compare two with `compareMsgIds`
 * @property {"room"|"direct"} kind
 * @property {number|null} roomId
 * @property {number} senderId
 * @property {number} receiverId  of a direct message; else 0
 * @property {string} senderName
 * @property {string} senderAvatar
 * @property {number} type        the application's own affair
 * @property {string} content
 * @property {number} createTime  milliseconds since 1970
 * @property {string} clientMsgId in the history of one's own; else ""
 */

/**
 * A message from the body of a BIZ packet, or from an item of POST /im/history; null for what is no chat.
 *
 * @param {any} body
 * @returns {Message|null}
 */
export function readMessage(body) {
  const data = parse(body.data);
  if (!data || (body.bizCode !== BizCode.ROOM_CHAT && body.bizCode !== BizCode.DIRECT)) return null;
  const isRoom = body.bizCode === BizCode.ROOM_CHAT && data.roomId != null;
  return {
    msgId: String(body.msgId ?? ""),
    kind: isRoom ? "room" : "direct",
    roomId: isRoom ? Number(data.roomId) : null,
    senderId: Number(data.userId ?? data.senderId ?? 0),
    receiverId: isRoom ? 0 : Number(data.objectId ?? 0),
    senderName: String(data.senderName ?? ""),
    senderAvatar: String(data.senderAvatar ?? ""),
    type: Number(data.type ?? 0),
    content: String(data.content ?? ""),
    createTime: Number(data.createTime ?? 0),
    clientMsgId: String(body.clientMsgId ?? ""),
  };
}

/**
 * Which of two msgIds is older: negative, 0 or positive. They have more digits than a number holds.
 *
 * @param {string} a @param {string} b
 */
export function compareMsgIds(a, b) {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/**
 * A message on its way: `pending`, then `stored` or `failed`; `retry` sends a failed one again as the same message.
 * None is made but by `QiyuClient`.
 */
class Outgoing {
  /** @type {"pending"|"stored"|"failed"} */
  status = "pending";
  msgId = "";
  /** @type {Refused|null} */
  error = null;
  createTime = Date.now();
  /** @internal When it was last sent on the connection that is open, or 0. */
  sentAt = 0;
  deadline = 0;
  #client;
  /** @type {(msgId: string) => void} */ #resolve = () => {};
  /** @type {(error: Refused) => void} */ #reject = () => {};

  /**
   * @param {(message: Outgoing) => void} resend
   * @param {number} bizCode @param {number} target @param {string} content @param {number} type
   * @param {string} clientMsgId
   */
  constructor(resend, bizCode, target, content, type, clientMsgId) {
    this.#client = resend;
    this.bizCode = bizCode;
    /** The room or the user. */
    this.target = target;
    this.content = content;
    this.type = type;
    this.clientMsgId = clientMsgId;
    /**
     * The msgId, once the message is stored; rejected with `Refused`.
     * @type {Promise<string>}
     */
    this.receipt = this.#promise();
  }

  /** Send a failed message again: under the same clientMsgId, so it is never stored twice. */
  retry() {
    if (this.status !== "failed") return this;
    this.status = "pending";
    this.error = null;
    this.receipt = this.#promise();
    this.#client(this);
    return this;
  }

  /** @internal @param {string} msgId */
  stored(msgId) {
    this.status = "stored";
    this.msgId = msgId;
    this.error = null;
    this.#resolve(msgId);
  }

  /** @internal @param {Refused} error */
  failed(error) {
    this.status = "failed";
    this.error = error;
    this.#reject(error);
  }

  #promise() {
    /** @type {Promise<string>} */
    const receipt = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    receipt.catch(() => {}); // who only looks at `status` need not wait for it
    return receipt;
  }
}

/** @typedef {Outgoing} OutgoingMessage */

/**
 * @typedef {object} Access       what opens a connection
 * @property {string} token       a login token, good for some minutes
 * @property {string} [url]       ws:// or wss:// address of the server, without a token in it
 * @property {number} [userId]
 */

/**
 * @typedef {object} Options
 * @property {number} [userId]
 * @property {number} [appId]
 * @property {string} [url]       ws:// or wss:// address, where `token` gives none
 * @property {string | (() => string|Access|null|Promise<string|Access|null>)} token
 *   A token, or what makes a fresh one for each connection. Null says that nobody is signed in any more, and ends the
 *   client; an exception counts as a failed attempt.
 * @property {"received"|"manual"} [ackDirect]
 *   When a direct message is acknowledged, and so leaves the inbox: as it comes, or when `ack` is called.
 * @property {any} [WebSocket]    a class to use in place of the global one
 * @property {number} [heartbeatSeconds]  what the server's `[session] heartbeat_seconds` says
 * @property {number} [connectSeconds]    from opening a connection to the answer to the login
 * @property {number} [receiptSeconds]    after which a message without a receipt has failed, and may be retried
 * @property {number} [pendingMessages]   the most that may wait for their receipts; one more fails at once
 * @property {number} [retryBaseSeconds]
 * @property {number} [retryCapSeconds]
 * @property {() => number} [random]
 */

/**
 * @typedef {object} State
 * @property {"stopped"|"connecting"|"online"|"reconnecting"|"offline"|"ended"} status
 *   `offline`: the device says that it has no network. `ended`: it will not connect again by itself.
 * @property {string} reason      of `ended`: "replaced" (signed in elsewhere), "banned", "signedOut" or "refused";
 *   of `reconnecting` what happened
 * @property {number|null} retryAt  when the next attempt begins, in milliseconds since 1970; null: it is being made
 */

/** @type {Required<Omit<Options, "userId"|"url"|"token"|"WebSocket">>} */
const DEFAULTS = {
  appId: APP_ID,
  ackDirect: "received",
  heartbeatSeconds: 30,
  connectSeconds: 10,
  receiptSeconds: 60,
  pendingMessages: 200,
  retryBaseSeconds: 1,
  retryCapSeconds: 30,
  random: Math.random,
};

/**
 * A user's link to the server, over as many connections as it takes. `on` names the events.
 */
export class QiyuClient {
  /** @type {State} */
  state = {status: "stopped", reason: "", retryAt: null};
  #options;
  /** @type {Map<string, Set<(event: any) => void>>} */
  #listeners = new Map();
  #userId = 0;
  #running = false;
  #attempt = 0; // counts up, so that what belongs to an earlier attempt is known
  #failures = 0; // in a row; what waiting grows with
  #tokensRefused = 0;
  #wasOnline = false;
  /** @type {Connection|null} */ #connection = null;
  /** @type {any} */ #retryTimer = null;
  /** @type {any} */ #ticker = null;
  /** @type {Entry|null} */ #room = null;
  /** @type {{id: string, entry: Entry|null}[]} */ #roomRequests = [];
  #roomRequestCount = 0;
  /** @type {any} */ #roomTimer = null;
  /** @type {Map<string, Outgoing>} */ #pending = new Map();
  /** @type {Map<string, Outgoing>} */ #failed = new Map(); // a receipt may come late
  #pausedUntil = 0;
  /** @type {Set<string>} */ #seen = new Set();
  /** @type {string[]} */ #acks = [];
  /** @type {any} */ #ackTimer = null;
  #likes = 0;
  /** @type {any} */ #likeTimer = null;
  /** @type {() => void} */ #unwatch = () => {};

  /** @param {Options} options */
  constructor(options) {
    if (!options || !options.token) throw new TypeError("token: expected a login token, or a function that makes one");
    this.#options = {...DEFAULTS, ...options};
    if (!this.#socketClass()) throw new TypeError("WebSocket: this platform has none, so pass one in the options");
  }

  /** The room that is entered or about to be, or null. */
  get roomId() {
    return this.#room?.roomId ?? null;
  }

  /** Messages that wait for their receipts. */
  get pending() {
    return [...this.#pending.values()];
  }

  /**
   * Be told of events; returns a function that ends it.
   *
   * - `state`: `State`, whenever it changes
   * - `message`: `Message`, once each, in the order of arrival; what was missed comes before what is new
   * - `event`: what happens in the room, `{roomId, event, userId, senderName, online, goodNum}`
   * - `entered`: `{roomId, online, lastMsgId, recovered, again}`; `recovered` false: messages may be missing, so load
   *   the history; `again`: after a connection was lost
   * - `roomRefused`: `{roomId, code, reason}`: the room cannot be entered, or not any more
   * - `outgoing`: `Outgoing`, whenever its status changes
   * - `refused`: `{code, reason}`: an ERROR that belongs to no message and no room
   *
   * @param {string} name @param {(event: any) => void} listener
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** Connect, and stay connected. Also after it ended, to be the one signed in. */
  start() {
    if (this.#running) return;
    this.#running = true;
    this.#failures = 0;
    this.#tokensRefused = 0;
    this.#wasOnline = false;
    // What the user said elsewhere meanwhile is not among what is caught up, which is what others said.
    if (this.#room?.wasEntered) this.#room.forget();
    this.#ticker = setInterval(() => this.#tick(), 1000);
    this.#unwatch = this.#watchDevice();
    this.#connect();
  }

  /** Leave for good: log out of the connection, and forget what waits. */
  stop() {
    if (!this.#running) return;
    this.#connection?.send(Code.LOGOUT, {});
    this.#finish("stopped", "left");
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    if (this.#running && this.#retryTimer !== null) this.#connect();
  }

  /**
   * Enter a room, leaving the one before, and come back to it after each lost connection.
   *
   * @param {number} roomId
   * @param {{afterMsgId?: string}} [where]  the last message that was seen: what came after it follows
   * @returns {Promise<{roomId: number, online: number, lastMsgId: string, recovered?: boolean, again: boolean}>}
   *   once it is entered; rejected with `Refused`
   */
  enter(roomId, {afterMsgId = ""} = {}) {
    this.#room?.reject(new Refused(0, "left"));
    const entry = new Entry(roomId, afterMsgId);
    this.#room = entry;
    if (this.#isOnline()) this.#requestRoom();
    return entry.promise;
  }

  /** Leave the room. */
  leave() {
    if (!this.#room) return;
    this.#room.reject(new Refused(0, "left"));
    this.#room = null;
    if (this.#isOnline()) this.#requestRoom();
  }

  /**
   * Say something in the room.
   *
   * @param {string} content @param {{type?: number, clientMsgId?: string}} [more]
   */
  sendRoom(content, more) {
    if (!this.#room) throw new Refused(0, "not in a room");
    return this.#send(BizCode.ROOM_CHAT, this.#room.roomId, content, more);
  }

  /**
   * Say something to one user, who gets it at the next login if not now.
   *
   * @param {number} userId @param {string} content @param {{type?: number, clientMsgId?: string}} [more]
   */
  sendDirect(userId, content, more) {
    return this.#send(BizCode.DIRECT, userId, content, more);
  }

  /** Like the room; many likes go in one packet. @param {number} [count] */
  like(count = 1) {
    if (!this.#room) return;
    this.#likes += count;
    this.#likeTimer ??= setTimeout(() => this.#sendLikes(), LIKE_DELAY_MS);
  }

  /** Acknowledge a direct message, where that is left to the application. @param {string} msgId */
  ack(msgId) {
    this.#acks.push(msgId);
    if (this.#acks.length > KEPT_ACKS) this.#acks.shift(); // the server sends that one again, and it is seen as a double
    if (this.#acks.length >= ACKS_PER_PACKET || globalThis.document?.hidden) this.#sendAcks();
    else this.#ackTimer ??= setTimeout(() => this.#sendAcks(), ACK_DELAY_MS);
  }

  // One connection after the other

  async #connect() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    const attempt = ++this.#attempt;
    this.#setState(this.#wasOnline || this.#failures ? "reconnecting" : "connecting", this.state.reason);
    /** @type {Access|null} */ let access;
    try {
      access = await this.#access();
    } catch (error) {
      if (attempt === this.#attempt) this.#retry(`no token: ${/** @type {Error} */ (error)?.message ?? error}`);
      return;
    }
    if (attempt !== this.#attempt) return;
    if (access === null) {
      this.#finish("ended", "signedOut");
      return;
    }
    this.#userId = Number(access.userId ?? this.#options.userId ?? 0);
    const login = {appId: this.#options.appId, userId: this.#userId, token: access.token};
    try {
      const socket = new (this.#socketClass())(bareUrl(access.url ?? this.#options.url));
      this.#connection = new Connection(socket, login, this.#options, {
        loggedIn: () => this.#loggedIn(),
        packet: (code, body) => this.#packet(code, body),
        ended: (end) => this.#ended(end),
      });
    } catch (error) {
      this.#retry(String(/** @type {Error} */ (error)?.message ?? error));
    }
  }

  /** @returns {Promise<Access|null>} */
  async #access() {
    const {token} = this.#options;
    const access = typeof token === "function" ? await token() : token;
    return typeof access === "string" ? {token: access} : access;
  }

  #socketClass() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  #isOnline() {
    return this.#connection !== null && this.#connection.loggedInAt > 0;
  }

  #loggedIn() {
    this.#wasOnline = true;
    this.#tokensRefused = 0;
    for (const message of this.#pending.values()) message.sentAt = 0;
    if (this.#room) this.#requestRoom();
    this.#setState("online", "");
    this.#sendAcks();
    this.#flush();
  }

  /** @param {End} end */
  #ended(end) {
    const held = this.#connection?.loggedInAt ? Date.now() - this.#connection.loggedInAt : 0;
    this.#connection = null;
    this.#roomRequests = [];
    this.#room?.lost();
    clearTimeout(this.#roomTimer);
    if (held >= STEADY_SECONDS * 1000) this.#failures = 0;
    if (end.unauthorized && (typeof this.#options.token === "string" || ++this.#tokensRefused >= TOKENS_REFUSED)) {
      this.#finish("ended", "refused");
    } else if (!end.reconnect) {
      this.#finish("ended", end.reason);
    } else {
      this.#retry(end.reason, end.retryAfterMs);
    }
  }

  /** @param {string} reason @param {number} [afterMs] */
  #retry(reason, afterMs = 0) {
    const {retryBaseSeconds, retryCapSeconds, random} = this.#options;
    const most = Math.min(retryCapSeconds, retryBaseSeconds * 2 ** Math.min(this.#failures++, 16)) * 1000;
    const isOffline = globalThis.navigator?.onLine === false;
    // Anywhere in the second half, so that all who lost their server at once do not come back at once. A device without
    // a network is told when it has one, and may be wrong about it: so it tries all the same, seldom.
    const delay = afterMs > 0 ? Math.min(afterMs, MAX_RETRY_MS)
      : isOffline ? retryCapSeconds * 1000 : most * (0.5 + random() / 2);
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#setState(isOffline ? "offline" : "reconnecting", reason, Date.now() + delay);
  }

  /** @param {"stopped"|"ended"} status @param {string} reason */
  #finish(status, reason) {
    this.#running = false;
    this.#attempt++;
    this.#connection?.close();
    this.#connection = null;
    for (const timer of [this.#retryTimer, this.#ackTimer, this.#likeTimer, this.#roomTimer]) clearTimeout(timer);
    this.#retryTimer = this.#ackTimer = this.#likeTimer = this.#roomTimer = null;
    clearInterval(this.#ticker);
    this.#unwatch();
    this.#roomRequests = [];
    this.#room?.lost();
    this.#likes = 0;
    for (const message of [...this.#pending.values()]) this.#fail(message, new Refused(0, reason));
    if (status === "stopped") {
      this.#room?.reject(new Refused(0, reason));
      this.#room = null;
    }
    this.#setState(status, reason);
  }

  #tick() {
    const now = Date.now();
    for (const message of [...this.#pending.values()]) {
      if (now >= message.deadline) this.#fail(message, new Refused(0, "timeout"));
      else if (message.sentAt && now - message.sentAt >= RESEND_SECONDS * 1000) message.sentAt = 0;
    }
    this.#connection?.tick(now);
    this.#flush();
  }

  /** A tab that slept and a network that changed have silent connections, which nobody told. */
  #watchDevice() {
    const target = globalThis;
    if (typeof target.addEventListener !== "function" || !target.document) return () => {};
    const leaving = () => this.#sendAcks(); // a page that is left, or loaded anew, has no time for gathering
    const visible = () => {
      if (target.document.hidden) return leaving();
      this.#connection?.probe();
      this.retryNow();
    };
    const online = () => {
      this.#connection?.probe();
      this.retryNow();
    };
    const offline = () => {
      this.#connection?.probe();
      if (this.#retryTimer !== null) this.#setState("offline", this.state.reason, this.state.retryAt);
    };
    target.document.addEventListener("visibilitychange", visible);
    target.addEventListener("pageshow", visible);
    target.addEventListener("pagehide", leaving);
    target.addEventListener("online", online);
    target.addEventListener("offline", offline);
    return () => {
      target.document.removeEventListener("visibilitychange", visible);
      target.removeEventListener("pageshow", visible);
      target.removeEventListener("pagehide", leaving);
      target.removeEventListener("online", online);
      target.removeEventListener("offline", offline);
    };
  }

  /** @param {State["status"]} status @param {string} reason @param {number|null} [retryAt] */
  #setState(status, reason, retryAt = null) {
    this.state = {status, reason, retryAt};
    this.#emit("state", this.state);
  }

  /** @param {string} name @param {any} event */
  #emit(name, event) {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(event);
      } catch (error) {
        // The listener's fault, reported as one; the client goes on.
        if (typeof globalThis.reportError === "function") globalThis.reportError(error);
        else console.error(error);
      }
    }
  }

  // What comes

  /** @param {number} code @param {any} body */
  #packet(code, body) {
    if (code === Code.BIZ) this.#biz(body);
    else if (code === Code.ACK) this.#receipt(body);
    else if (code === Code.ROOM) this.#roomAnswer(parse(body.data) ?? {});
    else if (code === Code.ERROR) this.#error(String(body.clientMsgId ?? ""), parse(body.data) ?? {});
  }

  /** @param {any} body */
  #biz(body) {
    const msgId = String(body.msgId ?? "");
    if (body.bizCode === BizCode.ROOM_EVENT) {
      this.#roomEvent(parse(body.data) ?? {});
      return;
    }
    const isNew = !msgId || !this.#seen.has(msgId);
    const message = readMessage(body);
    const isManual = message?.kind === "direct" && this.#options.ackDirect === "manual";
    if (msgId && !isManual) this.ack(msgId); // a double as well: it came because an ACK was lost
    if (!isNew) return;
    if (msgId) this.#remember(msgId);
    if (!message) return;
    if (this.#room && message.roomId === this.#room.roomId) this.#room.saw(msgId);
    this.#emit("message", message);
  }

  /** @param {string} msgId */
  #remember(msgId) {
    this.#seen.add(msgId);
    if (this.#seen.size > SEEN_MESSAGES) this.#seen.delete(/** @type {string} */ (this.#seen.values().next().value));
  }

  /** @param {any} event */
  #roomEvent(event) {
    const ends = event.event === "closed" ||
      (event.event === "removed" && Number(event.userId) === this.#userId);
    if (ends && this.#room?.roomId === Number(event.roomId)) {
      this.#room.reject(new Refused(event.event === "closed" ? 404 : 403, event.event));
      this.#room = null;
    }
    this.#emit("event", event);
  }

  /** @param {any} body */
  #receipt(body) {
    const id = String(body.clientMsgId ?? "");
    const message = this.#pending.get(id) ?? this.#failed.get(id);
    if (!message) return;
    this.#pending.delete(id);
    this.#failed.delete(id);
    message.stored(String(body.msgId));
    this.#emit("outgoing", message);
    this.#flush();
  }

  /** @param {string} id @param {any} error */
  #error(id, error) {
    const code = Number(error.code ?? 0);
    const reason = String(error.reason ?? "");
    const message = this.#pending.get(id);
    const request = this.#roomRequests.find((each) => each.id === id);
    if (message) {
      if (PASSING.has(code)) this.#pause();
      else this.#fail(message, new Refused(code, reason));
      this.#flush();
    } else if (request) {
      this.#roomRequests = this.#roomRequests.filter((each) => each !== request);
      if (request.entry !== null && request.entry === this.#room) this.#roomRefused(request.entry, code, reason);
    } else if (code === 206) {
      this.#room?.gap(String(error.lastMsgId ?? ""));
      if (this.#room) this.#requestRoomLater(); // once there is less to read
    } else {
      if (PASSING.has(code)) this.#pause();
      this.#emit("refused", {code, reason});
    }
  }

  // The room

  #requestRoom() {
    const entry = this.#room;
    const id = `room-${this.#attempt}-${++this.#roomRequestCount}`;
    this.#roomRequests.push({id, entry});
    /** @type {{roomId: number|null, afterMsgId?: string}} */
    const data = {roomId: entry?.roomId ?? null};
    if (entry?.after) data.afterMsgId = entry.after;
    this.#connection?.send(Code.ROOM, {clientMsgId: id, data: JSON.stringify(data)});
  }

  #requestRoomLater() {
    clearTimeout(this.#roomTimer);
    this.#roomTimer = setTimeout(() => {
      if (this.#room && this.#isOnline()) this.#requestRoom();
    }, PAUSE_MS * (0.5 + this.#options.random()));
  }

  /** @param {any} answer */
  #roomAnswer(answer) {
    const {entry} = this.#roomRequests.shift() ?? {}; // they are answered in the order they were sent
    if (!entry || entry !== this.#room) return;
    const again = entry.wasEntered;
    const event = {
      roomId: entry.roomId,
      online: Number(answer.online ?? 0),
      lastMsgId: String(answer.lastMsgId ?? ""),
      recovered: entry.after ? answer.recovered === true : again ? false : undefined,
      again,
    };
    entry.entered(answer);
    this.#emit("entered", event);
    entry.resolve(event);
    this.#flush();
  }

  /** @param {Entry} entry @param {number} code @param {string} reason */
  #roomRefused(entry, code, reason) {
    if (PASSING.has(code)) {
      this.#requestRoomLater();
      return;
    }
    this.#room = null;
    entry.reject(new Refused(code, reason));
    this.#emit("roomRefused", {roomId: entry.roomId, code, reason});
    this.#flush();
  }

  // What goes

  /**
   * @param {number} bizCode @param {number} target @param {string} content
   * @param {{type?: number, clientMsgId?: string}} [more]
   */
  #send(bizCode, target, content, {type = 1, clientMsgId = newId()} = {}) {
    if (!clientMsgId || clientMsgId.length > CLIENT_MSG_ID_CHARS) {
      throw new RangeError(`clientMsgId: expected 1 to ${CLIENT_MSG_ID_CHARS} characters`);
    }
    const message = new Outgoing((each) => this.#queue(each), bizCode, target, content, type, clientMsgId);
    this.#queue(message);
    return message;
  }

  /** @param {Outgoing} message */
  #queue(message) {
    const {receiptSeconds, pendingMessages} = this.#options;
    this.#failed.delete(message.clientMsgId);
    message.deadline = Date.now() + receiptSeconds * 1000;
    message.sentAt = 0;
    if (!this.#running) {
      this.#fail(message, new Refused(0, this.state.reason || "left"));
    } else if (this.#pending.size >= pendingMessages) {
      this.#fail(message, new Refused(0, "queue full"));
    } else {
      this.#pending.set(message.clientMsgId, message);
      this.#emit("outgoing", message);
      this.#flush();
    }
  }

  /** Send what was not sent on this connection, in order, and no more at once than `UNANSWERED`. */
  #flush() {
    const connection = this.#connection;
    const isSettled = !this.#room || this.#room.isIn; // in the room, or chat to it would be refused
    const now = Date.now();
    if (!connection || !this.#isOnline() || !isSettled || now < this.#pausedUntil) return;
    let unanswered = 0;
    for (const message of this.#pending.values()) {
      if (unanswered++ >= UNANSWERED) return;
      if (message.sentAt) continue;
      message.sentAt = now;
      const where = message.bizCode === BizCode.ROOM_CHAT ? {roomId: message.target} : {objectId: message.target};
      const data = JSON.stringify({...where, type: message.type, content: message.content});
      connection.send(Code.BIZ, {bizCode: message.bizCode, clientMsgId: message.clientMsgId, data});
    }
  }

  /** All that waits is sent again, in order: what was accepted already gets its receipt, and nothing overtakes. */
  #pause() {
    this.#pausedUntil = Date.now() + PAUSE_MS * (0.5 + this.#options.random());
    for (const message of this.#pending.values()) message.sentAt = 0;
  }

  /** @param {Outgoing} message @param {Refused} error */
  #fail(message, error) {
    this.#pending.delete(message.clientMsgId);
    this.#failed.set(message.clientMsgId, message);
    if (this.#failed.size > KEPT_FAILED) {
      this.#failed.delete(/** @type {string} */ (this.#failed.keys().next().value));
    }
    message.failed(error);
    this.#emit("outgoing", message);
  }

  #sendAcks() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    while (this.#acks.length && this.#isOnline()) {
      const [msgId, ...more] = this.#acks.splice(0, ACKS_PER_PACKET);
      this.#connection?.send(Code.ACK, more.length ? {msgId, data: JSON.stringify(more)} : {msgId});
    }
  }

  #sendLikes() {
    this.#likeTimer = null;
    const count = Math.min(this.#likes, LIKES_PER_PACKET);
    this.#likes -= count;
    if (this.#likes > 0) this.#likeTimer = setTimeout(() => this.#sendLikes(), LIKE_DELAY_MS);
    if (!this.#room?.isIn) return; // nobody misses a like
    const data = JSON.stringify({roomId: this.#room.roomId, count});
    this.#connection?.send(Code.BIZ, {bizCode: BizCode.LIKE, data});
  }
}

/** A room that is wanted, and how far its messages were seen. */
class Entry {
  isIn = false;
  wasEntered = false;
  #position;
  /** @type {string|null} Where the server began to leave messages out; what came since counts for nothing. */
  #gapAfter = null;
  /** @type {(answer: any) => void} */ resolve = () => {};
  /** @type {(error: Refused) => void} */ reject = () => {};

  /** @param {number} roomId @param {string} afterMsgId */
  constructor(roomId, afterMsgId) {
    this.roomId = roomId;
    this.#position = afterMsgId;
    /** @type {Promise<any>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {}); // told by an event as well
  }

  /** The message after which all are to come. */
  get after() {
    return this.#gapAfter ?? this.#position;
  }

  /** @param {any} answer */
  entered(answer) {
    this.isIn = this.wasEntered = true;
    this.#gapAfter = null;
    // A room in which nothing was said yet: whatever is said comes after 0.
    if (!this.#position && answer.lastMsgId !== undefined) this.#position = String(answer.lastMsgId) || "0";
  }

  /** @param {string} msgId */
  saw(msgId) {
    if (compareMsgIds(msgId, this.#position) > 0) this.#position = msgId;
  }

  /** @param {string} lastMsgId The last message before it, where the server says so. */
  gap(lastMsgId) {
    if (this.#gapAfter !== null) return;
    if (lastMsgId) this.saw(lastMsgId);
    this.#gapAfter = this.#position;
  }

  /** How far it was seen says nothing any more: the history is to be loaded. */
  forget() {
    this.#position = "";
    this.#gapAfter = null;
  }

  lost() {
    this.isIn = false;
  }
}

/**
 * @typedef {object} End
 * @property {string} reason
 * @property {boolean} reconnect
 * @property {number} [retryAfterMs]
 * @property {boolean} [unauthorized]
 */

/** One WebSocket, from its opening to its end, of which it tells once. */
class Connection {
  loggedInAt = 0;
  #socket;
  #options;
  #on;
  #heardAt = Date.now();
  #beatAt = Date.now();
  #answerBy = Infinity; // a heartbeat is to be answered until then
  #connectBy;
  /** @type {End|null} What the server said before it closed. */
  #end = null;
  #isOver = false;

  /**
   * @param {any} socket @param {object} login @param {typeof DEFAULTS} options
   * @param {{loggedIn: () => void, packet: (code: number, body: any) => void, ended: (end: End) => void}} on
   */
  constructor(socket, login, options, on) {
    this.#socket = socket;
    this.#options = options;
    this.#on = on;
    this.#connectBy = Date.now() + options.connectSeconds * 1000;
    socket.onopen = () => this.send(Code.LOGIN, login);
    socket.onmessage = (/** @type {{data: any}} */ event) => this.#received(event.data);
    socket.onclose = (/** @type {{code: number}} */ event) => {
      const final = FINAL_CLOSE.get(event.code);
      this.#over(final ? {reason: final, reconnect: false} : {reason: `closed (${event.code})`, reconnect: true});
    };
    socket.onerror = () => {}; // a close follows
  }

  /** @param {number} code @param {object} body */
  send(code, body) {
    if (this.#isOver || this.#socket.readyState !== 1) return;
    const text = JSON.stringify(body);
    this.#socket.send(JSON.stringify({magic: MAGIC, code, len: text.length, body: text}));
  }

  /** See whether the peer is still there, if nothing says so. */
  probe() {
    const now = Date.now();
    if (!this.loggedInAt || now - this.#heardAt < 2000) return;
    this.#beat(now, PROBE_SECONDS);
  }

  /** @param {number} now */
  tick(now) {
    const {heartbeatSeconds} = this.#options;
    if (!this.loggedInAt) {
      if (now >= this.#connectBy) this.#over({reason: "no answer", reconnect: true});
    } else if (now >= this.#answerBy) {
      this.#over({reason: "silent", reconnect: true});
    } else if (now - this.#beatAt >= heartbeatSeconds * 1000) {
      this.#beat(now, heartbeatSeconds);
    }
  }

  close() {
    this.#isOver = true;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
  }

  /** @param {number} now @param {number} seconds */
  #beat(now, seconds) {
    this.send(Code.HEARTBEAT, {});
    this.#beatAt = now;
    this.#answerBy = Math.min(this.#answerBy, now + seconds * 1000);
  }

  /** @param {any} text */
  #received(text) {
    if (this.#isOver) return;
    this.#heardAt = Date.now();
    this.#answerBy = Infinity;
    const envelope = parse(text);
    const body = envelope?.magic === MAGIC ? parse(envelope.body) ?? {} : null;
    if (body === null) {
      this.#over({reason: "not the protocol", reconnect: true});
    } else if (envelope.code === Code.LOGIN) {
      if (this.loggedInAt) return;
      this.loggedInAt = this.#beatAt = Date.now();
      this.#on.loggedIn();
    } else if (envelope.code === Code.LOGOUT) {
      const end = parse(body.data);
      if (end?.reason) {
        this.#over({
          reason: String(end.reason),
          reconnect: end.reconnect === true,
          retryAfterMs: Number(end.retryAfterMs ?? 0),
        });
      } else {
        this.#over({reason: "left", reconnect: false});
      }
    } else if (!this.loggedInAt && envelope.code === Code.ERROR) {
      const error = parse(body.data) ?? {};
      this.#over({reason: String(error.reason ?? ""), reconnect: true, unauthorized: Number(error.code) === 401});
    } else {
      this.#on.packet(envelope.code, body);
    }
  }

  /** @param {End} end */
  #over(end) {
    if (this.#isOver) return;
    this.close();
    this.#on.ended(end);
  }
}

/** @param {any} text @returns {any} */
function parse(text) {
  if (typeof text !== "string" || !text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The address at which a connection logs in by packet. @param {string|undefined} url */
function bareUrl(url) {
  if (!url || !/^wss?:\/\//.test(url)) throw new TypeError(`url ${url}: expected ws://… or wss://…`);
  return url.endsWith("/") ? url : `${url}/`;
}

/** 22 characters that nobody else has. */
function newId() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
