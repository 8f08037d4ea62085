/** A client of a qiyu server over WebSocket, for browsers and for Node. */

export declare const APP_ID: 10001;

export declare const Code: Readonly<{
  LOGIN: 1001;
  LOGOUT: 1002;
  BIZ: 1003;
  HEARTBEAT: 1004;
  ACK: 1005;
  ROOM: 1006;
  ERROR: 1007;
}>;

export declare const BizCode: Readonly<{ROOM_CHAT: 5555; DIRECT: 5556; ROOM_EVENT: 5557; LIKE: 5558}>;

/** Why a message or a room was refused, or a message not confirmed; `code` is 0 where it was not the server's doing. */
export declare class Refused extends Error {
  constructor(code: number, reason: string);
  readonly code: number;
  readonly reason: string;
}

export interface Message {
  /** Decimal, grows with time; compare two with `compareMsgIds`. */
  msgId: string;
  kind: "room" | "direct";
  roomId: number | null;
  senderId: number;
  /** Of a direct message; else 0. */
  receiverId: number;
  senderName: string;
  senderAvatar: string;
  /** The application's own affair. */
  type: number;
  content: string;
  /** Milliseconds since 1970. */
  createTime: number;
  /** In the history of one's own messages; else "". */
  clientMsgId: string;
}

/** A message from the body of a BIZ packet, or from an item of POST /im/history; null for what is no chat. */
export declare function readMessage(body: unknown): Message | null;

/** Which of two msgIds is older: negative, 0 or positive. */
export declare function compareMsgIds(a: string, b: string): number;

/** A message on its way. */
export interface Outgoing {
  readonly status: "pending" | "stored" | "failed";
  readonly clientMsgId: string;
  /** Once it is stored; else "". */
  readonly msgId: string;
  readonly bizCode: number;
  /** The room or the user. */
  readonly target: number;
  readonly content: string;
  readonly type: number;
  readonly createTime: number;
  /** Why it failed. */
  readonly error: Refused | null;
  /** The msgId, once it is stored; rejected with `Refused`. */
  readonly receipt: Promise<string>;
  /** Send a failed message again, as the same message: it is never stored twice. */
  retry(): this;
}

/** What opens a connection. */
export interface Access {
  /** A login token, good for some minutes. */
  token: string;
  /** ws:// or wss:// address of the server, without a token in it. */
  url?: string;
  userId?: number;
}

export interface Options {
  userId?: number;
  /** 10001 unless given. */
  appId?: number;
  /** ws:// or wss:// address, where `token` gives none. */
  url?: string;
  /**
   * A token, or what makes a fresh one for each connection. Null says that nobody is signed in any more, and ends the
   * client; an exception counts as a failed attempt.
   */
  token: string | (() => string | Access | null | Promise<string | Access | null>);
  /** When a direct message is acknowledged, and so leaves the inbox: as it comes, or when `ack` is called. */
  ackDirect?: "received" | "manual";
  /** A class to use in place of the global one. */
  WebSocket?: unknown;
  /** What the server's `[session] heartbeat_seconds` says; 30 unless given. */
  heartbeatSeconds?: number;
  /** From opening a connection to the answer to the login; 10 unless given. */
  connectSeconds?: number;
  /** After which a message without a receipt has failed, and may be retried; 60 unless given. */
  receiptSeconds?: number;
  /** The most that may wait for their receipts, 200 unless given; one more fails at once. */
  pendingMessages?: number;
  /** The longest first wait before a new attempt, which doubles with each; 1 unless given. */
  retryBaseSeconds?: number;
  /** The longest wait of all; 30 unless given. */
  retryCapSeconds?: number;
  random?: () => number;
}

export interface State {
  /** `offline`: the device says that it has no network. `ended`: it will not connect again by itself. */
  status: "stopped" | "connecting" | "online" | "reconnecting" | "offline" | "ended";
  /** Of `ended`: "replaced" (signed in elsewhere), "banned", "signedOut" or "refused". */
  reason: string;
  /** When the next attempt begins, in milliseconds since 1970; null: it is being made. */
  retryAt: number | null;
}

/** Something that happens in the room. */
export interface RoomEvent {
  roomId: number;
  event: "enter" | "leave" | "count" | "closed" | "onAir" | "offAir" | "muted" | "unmuted" | "removed" | string;
  userId?: number;
  senderName?: string;
  online?: number;
  goodNum?: number;
}

export interface Entered {
  roomId: number;
  online: number;
  lastMsgId: string;
  /** False: messages may be missing, so load the history. Undefined where nothing was asked to be recovered. */
  recovered?: boolean;
  /** Whether this is after a connection was lost. */
  again: boolean;
}

export interface Events {
  state: State;
  /** Once each, in the order of arrival. */
  message: Message;
  event: RoomEvent;
  entered: Entered;
  /** The room cannot be entered, or not any more. */
  roomRefused: {roomId: number; code: number; reason: string};
  /** Whenever the status of a message on its way changes. */
  outgoing: Outgoing;
  /** An ERROR that belongs to no message and no room. */
  refused: {code: number; reason: string};
}

export interface MessageOptions {
  /** 1 unless given. */
  type?: number;
  /** At most 64 characters, unique for this sender; made unless given. */
  clientMsgId?: string;
}

/** A user's link to the server, over as many connections as it takes. */
export declare class QiyuClient {
  constructor(options: Options);
  readonly state: State;
  /** The room that is entered or about to be, or null. */
  readonly roomId: number | null;
  /** Messages that wait for their receipts. */
  readonly pending: Outgoing[];
  /** Be told of events; returns a function that ends it. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  /** Connect, and stay connected. Also after it ended, to be the one signed in. */
  start(): void;
  /** Leave for good. */
  stop(): void;
  /** Do not wait for the next attempt. */
  retryNow(): void;
  /** Enter a room, leaving the one before, and come back to it after each lost connection. */
  enter(roomId: number, where?: {afterMsgId?: string}): Promise<Entered>;
  leave(): void;
  /** Say something in the room; throws `Refused` where there is none. */
  sendRoom(content: string, options?: MessageOptions): Outgoing;
  /** Say something to one user, who gets it at the next login if not now. */
  sendDirect(userId: number, content: string, options?: MessageOptions): Outgoing;
  /** Like the room; many likes go in one packet. */
  like(count?: number): void;
  /** Acknowledge a direct message, where that is left to the application. */
  ack(msgId: string): void;
}
