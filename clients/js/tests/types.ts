// What the types promise, held by tsc against the client itself and against how it is used. Nothing of this runs.
import * as real from "../../../src/qiyu/web/pages/qiyu-client.js";
import {BizCode, Code, compareMsgIds, QiyuClient, readMessage, Refused} from "qiyu-client";
import type * as typed from "qiyu-client";

// All that the types have is there, and takes and gives what they say.
real satisfies typeof typed;
// And nothing is there that they do not have.
const names: Record<keyof typeof real, unknown> = {} as typeof typed;
const members: Record<keyof real.QiyuClient, unknown> = {} as typed.QiyuClient;
void [names, members];

const client = new QiyuClient({
  userId: 10001,
  token: async () => ({token: "…", url: "wss://live.example.com/im"}),
  ackDirect: "manual",
  heartbeatSeconds: 30,
});
const end: () => void = client.on("message", ({msgId, content, roomId}) => {
  client.ack(msgId);
  return [content.length, roomId?.toFixed()];
});
client.on("state", ({status, retryAt}) => status === "reconnecting" && (retryAt ?? 0) > Date.now());
client.on("event", ({event, online}) => event === "count" && online);
client.on("entered", ({recovered, again}) => [recovered, again]);
client.on("refused", ({code, reason}) => code === Code.ERROR && reason);
client.start();
const entered: Promise<{roomId: number; online: number}> = client.enter(7, {afterMsgId: "1"});
const message = client.sendRoom("hello", {clientMsgId: "a", type: 2});
message.receipt.catch((error: unknown) => error instanceof Refused && error.code === 503);
message.retry().status satisfies "pending" | "stored" | "failed";
const older: number = compareMsgIds("9", "10");
const read: string | undefined = readMessage({})?.senderName;
void [end, entered, older, read, BizCode.LIKE satisfies 5558];

// @ts-expect-error: it cannot do without a token
new QiyuClient({userId: 10001});
// @ts-expect-error: there is no such event
client.on("messages", () => {});
// @ts-expect-error: a room is a number
client.enter("7");
// @ts-expect-error: its state is its own affair
client.state = {status: "online", reason: "", retryAt: null};
