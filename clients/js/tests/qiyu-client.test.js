import assert from "node:assert/strict";
import {afterEach, beforeEach, describe, it, mock} from "node:test";

import {
  BizCode, Code, QiyuClient, Refused, compareMsgIds, readMessage,
} from "../../../src/qiyu/web/pages/qiyu-client.js";
import {FakeSocket, settle} from "./fakes.js";

const URL_ = "ws://127.0.0.1:8086/";
/** @type {QiyuClient} */
let client;
let states;
let events;

function makeClient(options = {}) {
  client = new QiyuClient({
    userId: 10001, url: URL_, token: "t%10001", WebSocket: FakeSocket, random: () => 1, ...options,
  });
  states = [];
  events = [];
  client.on("state", (state) => states.push(state.status === "ended" ? `ended ${state.reason}` : state.status));
  for (const name of ["message", "event", "entered", "roomRefused", "outgoing", "refused"]) {
    client.on(name, (event) => events.push([name, event]));
  }
  return client;
}

async function online(options) {
  makeClient(options);
  client.start();
  await logIn();
}

async function logIn() {
  await settle();
  FakeSocket.last.open();
  FakeSocket.last.receive(Code.LOGIN, {data: "true"});
  await settle();
}

const of = (name) => events.filter(([each]) => each === name).map(([, event]) => event);
const chat = (msgId, content = "hi", roomId = 7) => ({
  userId: 10001, bizCode: BizCode.ROOM_CHAT, msgId,
  data: {userId: 10002, roomId, type: 1, content, senderName: "b", senderAvatar: "", createTime: 5},
});
const direct = (msgId, content = "psst") => ({
  userId: 10001, bizCode: BizCode.DIRECT, msgId,
  data: {userId: 10002, objectId: 10001, type: 1, content, senderName: "b", senderAvatar: "", createTime: 5},
});

beforeEach(() => {
  FakeSocket.all = [];
  mock.timers.enable({apis: ["setTimeout", "setInterval", "Date"], now: 1_000_000});
});

afterEach(() => {
  client?.stop();
  mock.timers.reset();
});

describe("logging in", () => {
  it("is a packet, so that no token stands in an address", async () => {
    await online();
    assert.equal(FakeSocket.last.url, URL_);
    assert.deepEqual(FakeSocket.last.sent[0], {code: Code.LOGIN, appId: 10001, userId: 10001, token: "t%10001"});
    assert.deepEqual(states, ["connecting", "online"]);
  });

  it("takes a fresh token and address for each connection", async () => {
    let count = 0;
    await online({token: async () => ({token: `t${++count}`, url: `wss://h${count}/im`, userId: 10005})});
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    assert.equal(FakeSocket.last.url, "wss://h2/im/");
    assert.deepEqual([FakeSocket.last.sent[0].token, FakeSocket.last.sent[0].userId], ["t2", 10005]);
  });

  it("gives up when the server refuses a token that cannot be renewed", async () => {
    makeClient().start();
    await settle();
    FakeSocket.last.open();
    FakeSocket.last.receive(Code.ERROR, {data: {code: 401, reason: "expired"}});
    assert.equal(states.at(-1), "ended refused");
  });

  it("tries fresh tokens, but not for ever", async () => {
    makeClient({token: () => "t"}).start();
    for (let i = 0; i < 3; i++) {
      await settle();
      FakeSocket.last.open();
      FakeSocket.last.receive(Code.ERROR, {data: {code: 401, reason: "expired"}});
      mock.timers.tick(30_000);
    }
    assert.equal(FakeSocket.all.length, 3);
    assert.equal(states.at(-1), "ended refused");
  });

  it("ends where nobody is signed in any more, and waits where the token cannot be had", async () => {
    let answer = () => Promise.reject(new Error("503"));
    makeClient({token: () => answer()}).start();
    await settle();
    assert.equal(client.state.status, "reconnecting");
    assert.match(client.state.reason, /503/);
    answer = () => Promise.resolve(null);
    mock.timers.tick(1000);
    await settle();
    assert.equal(states.at(-1), "ended signedOut");
    assert.equal(FakeSocket.all.length, 0);
  });

  it("does not wait for a server that does not answer", async () => {
    makeClient().start();
    await settle();
    mock.timers.tick(11_000);
    assert.equal(client.state.status, "reconnecting");
    assert.equal(FakeSocket.last.closed, true);
  });
});

describe("staying connected", () => {
  it("beats, and gives up a silent connection", async () => {
    await online();
    mock.timers.tick(31_000);
    assert.equal(FakeSocket.last.of(Code.HEARTBEAT).length, 1);
    FakeSocket.last.receive(Code.HEARTBEAT, {data: "true"});
    mock.timers.tick(30_000);
    assert.equal(client.state.status, "online");
    mock.timers.tick(31_000);
    assert.equal(client.state.status, "reconnecting");
  });

  it("waits longer each time, up to a cap, and says when it tries again", async () => {
    await online();
    FakeSocket.last.drop();
    const waits = [];
    for (let i = 0; i < 8; i++) {
      waits.push(client.state.retryAt - Date.now());
      mock.timers.tick(waits.at(-1));
      await settle();
      FakeSocket.last.drop();
    }
    assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it("begins anew after a connection that held", async () => {
    await online();
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    mock.timers.tick(25_000);
    FakeSocket.last.receive(Code.HEARTBEAT, {data: "true"});
    mock.timers.tick(25_000);
    FakeSocket.last.drop();
    assert.equal(client.state.retryAt - Date.now(), 1000);
  });

  it("comes back when a stopping server says", async () => {
    await online();
    FakeSocket.last.receive(Code.LOGOUT, {data: {reason: "drain", reconnect: true, retryAfterMs: 2345}});
    assert.equal(client.state.retryAt - Date.now(), 2345);
    client.retryNow();
    await settle();
    assert.equal(FakeSocket.all.length, 2);
  });

  for (const [reason, close] of [["replaced", 4001], ["signedOut", 4002], ["banned", 4003]]) {
    it(`does not come back when ${reason}`, async () => {
      await online();
      FakeSocket.last.receive(Code.LOGOUT, {data: {reason, reconnect: false}});
      mock.timers.tick(100_000);
      assert.equal(states.at(-1), `ended ${reason}`);
      assert.equal(FakeSocket.all.length, 1);
    });

    it(`knows ${reason} by close code ${close} too, and can be started again`, async () => {
      await online();
      FakeSocket.last.drop(close);
      assert.equal(states.at(-1), `ended ${reason}`);
      client.start();
      await logIn();
      assert.equal(client.state.status, "online");
    });
  }

  it("treats what is no packet as a broken connection", async () => {
    await online();
    FakeSocket.last.onmessage({data: "<html>"});
    assert.equal(client.state.status, "reconnecting");
  });

  it("logs out when it is stopped", async () => {
    await online();
    const room = client.enter(7);
    client.stop();
    assert.equal(FakeSocket.last.of(Code.LOGOUT).length, 1);
    assert.equal(FakeSocket.last.closed, true);
    await assert.rejects(room, Refused);
    mock.timers.tick(100_000);
    assert.equal(FakeSocket.all.length, 1);
  });
});

describe("messages", () => {
  it("come once each, and are acknowledged together, doubles too", async () => {
    await online();
    for (const msgId of ["1", "2", "2"]) FakeSocket.last.receive(Code.BIZ, chat(msgId));
    assert.deepEqual(of("message").map((message) => message.msgId), ["1", "2"]);
    mock.timers.tick(100);
    assert.deepEqual(FakeSocket.last.of(Code.ACK), [{code: Code.ACK, msgId: "1", data: ["2", "2"]}]);
  });

  it("are acknowledged on the next connection, if this one is gone", async () => {
    await online();
    FakeSocket.last.receive(Code.BIZ, direct("9"));
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    assert.deepEqual(FakeSocket.last.of(Code.ACK), [{code: Code.ACK, msgId: "9"}]);
  });

  it("of the inbox are acknowledged by the application, where that is asked for", async () => {
    await online({ackDirect: "manual"});
    FakeSocket.last.receive(Code.BIZ, direct("9"));
    FakeSocket.last.receive(Code.BIZ, direct("9"));
    mock.timers.tick(100);
    assert.equal(of("message").length, 1);
    assert.equal(FakeSocket.last.of(Code.ACK).length, 0);
    client.ack("9");
    mock.timers.tick(100);
    assert.equal(FakeSocket.last.of(Code.ACK).length, 1);
  });

  it("are read in both forms of a direct one", () => {
    const older = direct("3");
    older.bizCode = BizCode.ROOM_CHAT;
    for (const body of [direct("3"), older]) {
      const message = readMessage({...body, data: JSON.stringify(body.data)});
      assert.deepEqual([message.kind, message.senderId, message.receiverId, message.roomId],
        ["direct", 10002, 10001, null]);
    }
    assert.equal(readMessage({bizCode: BizCode.ROOM_EVENT, data: "{}"}), null);
    assert.equal(readMessage({bizCode: BizCode.DIRECT, data: "no json"}), null);
  });

  it("are ordered by ids that are longer than a number", () => {
    const ids = ["9007199254740993", "9007199254740992", "99", "9007199254740994"];
    assert.deepEqual(ids.sort(compareMsgIds), ["99", "9007199254740992", "9007199254740993", "9007199254740994"]);
  });

  it("reach all listeners, though one of them throws", async () => {
    await online();
    const errors = mock.method(console, "error", () => {});
    const heard = [];
    client.on("message", () => {
      throw new Error("mine");
    });
    client.on("message", (message) => heard.push(message.msgId));
    FakeSocket.last.receive(Code.BIZ, chat("1"));
    assert.deepEqual(heard, ["1"]);
    assert.equal(errors.mock.callCount(), 1);
    errors.mock.restore();
  });
});

describe("a room", () => {
  const answer = (more = {}) => FakeSocket.last.receive(Code.ROOM, {data: {roomId: 7, online: 2, ...more}});

  it("is entered, and come back to after the last message seen", async () => {
    await online();
    const entered = client.enter(7);
    assert.deepEqual(FakeSocket.last.of(Code.ROOM)[0].data, {roomId: 7});
    answer({lastMsgId: "100"});
    assert.deepEqual(await entered, {roomId: 7, online: 2, lastMsgId: "100", recovered: undefined, again: false});
    FakeSocket.last.receive(Code.BIZ, chat("101"));
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    assert.deepEqual(FakeSocket.last.of(Code.ROOM)[0].data, {roomId: 7, afterMsgId: "101"});
    answer({recovered: true});
    assert.deepEqual([of("entered")[1].again, of("entered")[1].recovered], [true, true]);
  });

  it("is come back to from where it was entered, though nothing was said", async () => {
    for (const [lastMsgId, after] of [["100", "100"], ["", "0"]]) {
      await online();
      client.enter(7);
      answer({lastMsgId});
      FakeSocket.last.drop();
      mock.timers.tick(1000);
      await logIn();
      assert.equal(FakeSocket.last.of(Code.ROOM)[0].data.afterMsgId, after);
      client.stop();
    }
  });

  it("is entered anew, and its history is to be loaded, after the user was signed in elsewhere", async () => {
    await online();
    client.enter(7);
    answer({lastMsgId: "100"});
    FakeSocket.last.receive(Code.BIZ, chat("101"));
    FakeSocket.last.drop(4001);
    client.start();
    await logIn();
    assert.deepEqual(FakeSocket.last.of(Code.ROOM)[0].data, {roomId: 7});
    answer({lastMsgId: "105"});
    assert.deepEqual([of("entered")[1].again, of("entered")[1].recovered], [true, false]);
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    assert.equal(FakeSocket.last.of(Code.ROOM)[0].data.afterMsgId, "105");
  });

  it("asks for what a slow connection was not sent, and means that also after the next connection", async () => {
    await online();
    client.enter(7);
    answer({lastMsgId: "100"});
    FakeSocket.last.receive(Code.ERROR, {data: {code: 206, reason: "dropped"}});
    FakeSocket.last.receive(Code.BIZ, chat("150"));
    mock.timers.tick(3000);
    assert.equal(FakeSocket.last.of(Code.ROOM)[1].data.afterMsgId, "100");
    FakeSocket.last.drop();
    mock.timers.tick(1000);
    await logIn();
    assert.equal(FakeSocket.last.of(Code.ROOM)[0].data.afterMsgId, "100");
    answer({recovered: true});
    FakeSocket.last.drop();
    mock.timers.tick(3000);
    await logIn();
    assert.equal(FakeSocket.last.of(Code.ROOM)[0].data.afterMsgId, "150");
  });

  it("believes the server where a gap begins, and keeps to the first that is not filled", async () => {
    await online();
    client.enter(7);
    answer({});
    FakeSocket.last.receive(Code.ERROR, {data: {code: 206, reason: "dropped", lastMsgId: "77"}});
    FakeSocket.last.receive(Code.ERROR, {data: {code: 206, reason: "dropped", lastMsgId: "99"}});
    mock.timers.tick(3000);
    assert.deepEqual(FakeSocket.last.of(Code.ROOM).map(({data}) => data.afterMsgId), [undefined, "77"]);
  });

  it("may be refused: for good, or for a moment", async () => {
    await online();
    const refusal = (code) => {
      const {clientMsgId} = FakeSocket.last.of(Code.ROOM).at(-1);
      FakeSocket.last.receive(Code.ERROR, {clientMsgId, data: {code, reason: "roomId 7: no"}});
    };
    const entered = client.enter(7);
    refusal(503);
    mock.timers.tick(3000);
    assert.equal(FakeSocket.last.of(Code.ROOM).length, 2);
    refusal(404);
    await assert.rejects(entered, {code: 404});
    assert.equal(of("roomRefused")[0].code, 404);
    assert.equal(client.roomId, null);
  });

  it("that was left for another answers for the other", async () => {
    await online();
    const first = client.enter(7);
    const second = client.enter(8);
    answer();
    FakeSocket.last.receive(Code.ROOM, {data: {roomId: 8, online: 5}});
    await assert.rejects(first, Refused);
    assert.equal((await second).online, 5);
    client.leave();
    assert.deepEqual(FakeSocket.last.of(Code.ROOM).at(-1).data, {roomId: null});
    assert.throws(() => client.sendRoom("x"), Refused);
  });

  it("is not come back to once it is closed, or I am removed from it", async () => {
    for (const event of [{event: "closed"}, {event: "removed", userId: 10001}]) {
      await online();
      client.enter(7);
      answer({lastMsgId: "1"});
      FakeSocket.last.receive(Code.BIZ, {bizCode: BizCode.ROOM_EVENT, data: {event: "removed", roomId: 7, userId: 10002}});
      assert.equal(client.roomId, 7);
      FakeSocket.last.receive(Code.BIZ, {bizCode: BizCode.ROOM_EVENT, data: {roomId: 7, ...event}});
      assert.equal(client.roomId, null);
      client.stop();
    }
  });

  it("takes likes together, fifty in a packet at most", async () => {
    await online();
    client.enter(7);
    answer();
    for (let i = 0; i < 60; i++) client.like();
    mock.timers.tick(300);
    mock.timers.tick(300);
    assert.deepEqual(FakeSocket.last.of(Code.BIZ).map((packet) => packet.data.count), [50, 10]);
  });
});

describe("what is sent", () => {
  const receipt = (clientMsgId, msgId) => FakeSocket.last.receive(Code.ACK, {clientMsgId, msgId});
  const refuse = (clientMsgId, code) =>
    FakeSocket.last.receive(Code.ERROR, {clientMsgId, data: {code, reason: "no"}});
  const sent = () => FakeSocket.last.of(Code.BIZ).map((packet) => packet.data.content);

  async function inRoom(options) {
    await online(options);
    client.enter(7);
    FakeSocket.last.receive(Code.ROOM, {data: {roomId: 7, online: 1, lastMsgId: "1"}});
  }

  it("is pending, then stored", async () => {
    await inRoom();
    const message = client.sendRoom("hello");
    assert.equal(message.status, "pending");
    assert.deepEqual(FakeSocket.last.of(Code.BIZ)[0].data, {roomId: 7, type: 1, content: "hello"});
    receipt(message.clientMsgId, "55");
    assert.equal(await message.receipt, "55");
    assert.deepEqual([message.status, client.pending.length], ["stored", 0]);
  });

  it("is sent again on the next connection, in order, once it is back in the room", async () => {
    await inRoom();
    const one = client.sendRoom("1");
    client.sendDirect(10002, "2");
    FakeSocket.last.drop();
    client.sendRoom("3");
    mock.timers.tick(1000);
    await logIn();
    assert.deepEqual(sent(), []);
    FakeSocket.last.receive(Code.ROOM, {data: {roomId: 7, online: 1, recovered: true}});
    assert.deepEqual(sent(), ["1", "2", "3"]);
    assert.equal(FakeSocket.last.of(Code.BIZ)[0].clientMsgId, one.clientMsgId);
  });

  it("is sent again where a receipt does not come", async () => {
    await inRoom();
    client.sendRoom("1");
    mock.timers.tick(11_000);
    assert.deepEqual(sent(), ["1", "1"]);
  });

  it("fails in time, and is the same message when it is tried again", async () => {
    await inRoom();
    const message = client.sendRoom("1");
    FakeSocket.last.drop();
    for (let i = 0; i < 61; i++) mock.timers.tick(1000);
    await assert.rejects(message.receipt, {code: 0, reason: "timeout"});
    assert.equal(message.status, "failed");
    await logIn();
    FakeSocket.last.receive(Code.ROOM, {data: {roomId: 7, online: 1, recovered: true}});
    assert.deepEqual(sent(), []);
    message.retry();
    assert.equal(FakeSocket.last.of(Code.BIZ)[0].clientMsgId, message.clientMsgId);
    receipt(message.clientMsgId, "77");
    assert.equal(await message.receipt, "77");
  });

  it("counts as stored, though its receipt comes late", async () => {
    await inRoom({receiptSeconds: 5});
    const message = client.sendRoom("1");
    mock.timers.tick(6000);
    assert.equal(message.status, "failed");
    receipt(message.clientMsgId, "77");
    assert.equal(message.status, "stored");
  });

  for (const code of [400, 403, 409, 507]) {
    it(`fails when it is refused with ${code}`, async () => {
      await inRoom();
      const message = client.sendRoom("1");
      refuse(message.clientMsgId, code);
      await assert.rejects(message.receipt, {code});
    });
  }

  for (const code of [429, 503]) {
    it(`waits a little after ${code}, and nothing overtakes`, async () => {
      await inRoom();
      const first = client.sendRoom("1");
      client.sendRoom("2");
      refuse(first.clientMsgId, code);
      client.sendRoom("3");
      assert.deepEqual(sent(), ["1", "2"]);
      mock.timers.tick(3000);
      assert.deepEqual(sent(), ["1", "2", "1", "2", "3"]);
    });
  }

  it("goes a few at once", async () => {
    await inRoom();
    for (let i = 0; i < 40; i++) client.sendRoom(String(i));
    assert.equal(sent().length, 16);
    for (const message of client.pending) receipt(message.clientMsgId, "9");
    assert.equal(sent().length, 40);
  });

  it("fails at once where too much waits", async () => {
    await inRoom({pendingMessages: 2});
    client.sendRoom("1");
    client.sendRoom("2");
    await assert.rejects(client.sendRoom("3").receipt, {reason: "queue full"});
  });

  it("fails when the client ends", async () => {
    await inRoom();
    const message = client.sendRoom("1");
    FakeSocket.last.receive(Code.LOGOUT, {data: {reason: "banned", reconnect: false}});
    await assert.rejects(message.receipt, {reason: "banned"});
  });

  it("has an id that can be", async () => {
    await inRoom();
    assert.match(client.sendRoom("1").clientMsgId, /^[\w-]{22}$/);
    assert.throws(() => client.sendRoom("1", {clientMsgId: "x".repeat(65)}), RangeError);
  });
});

describe("options", () => {
  it("that cannot be are refused at once", () => {
    assert.throws(() => new QiyuClient({url: URL_, WebSocket: FakeSocket}), /token/);
    if (!globalThis.WebSocket) assert.throws(() => new QiyuClient({url: URL_, token: "t"}), /WebSocket/);
  });

  it("with an address of another kind never connect", async () => {
    makeClient({url: "http://127.0.0.1"}).start();
    await settle();
    assert.match(client.state.reason, /expected ws:/);
  });
});

/** Do this where there is a document, as in a page. @param {(page: EventTarget) => Promise<void>} act */
async function inPage(act) {
  const saved = [globalThis.document, globalThis.addEventListener, globalThis.removeEventListener];
  const page = new EventTarget();
  globalThis.document = Object.assign(new EventTarget(), {hidden: false});
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  try {
    await act(page);
  } finally {
    [globalThis.document, globalThis.addEventListener, globalThis.removeEventListener] = saved;
  }
}

describe("a page", () => {
  it("that is left acknowledges at once what it has", () => inPage(async (page) => {
    await online();
    for (const [msgId, leave] of [
      ["1", () => page.dispatchEvent(new Event("pagehide"))],
      ["2", () => document.dispatchEvent(new Event("visibilitychange"))],
    ]) {
      client.ack(msgId);
      assert.equal(FakeSocket.last.of(Code.ACK).some((ack) => ack.msgId === msgId), false);
      document.hidden = msgId === "2";
      leave();
      assert.equal(FakeSocket.last.of(Code.ACK).some((ack) => ack.msgId === msgId), true);
    }
    client.stop();
  }));

  it("that wakes up or finds its network looks after the connection at once", () => inPage(async (page) => {
    await online();
    mock.timers.tick(5000);
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(FakeSocket.last.of(Code.HEARTBEAT).length, 1);
    mock.timers.tick(6000);
    assert.equal(client.state.status, "reconnecting");
    page.dispatchEvent(new Event("offline"));
    assert.equal(client.state.status, "offline");
    page.dispatchEvent(new Event("online"));
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    client.stop();
    document.dispatchEvent(new Event("visibilitychange"));
  }));
});
