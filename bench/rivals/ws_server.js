// ws on Node: the same room work as house.py does for the peers in Python.
"use strict";
const { WebSocketServer } = require("ws");

const LOGIN = 1001, BIZ = 1003, ACK = 1005;
const rooms = new Map();
let msgId = 10n ** 18n; // 19 digits

const packet = (code, body) => `{"magic":18673,"code":${code},"len":${body.length},"body":${JSON.stringify(body)}}`;

function fanOut(sender, data) {
  const { roomId, content } = JSON.parse(data);
  const id = String(msgId++);
  const inner = JSON.stringify({ userId: sender.user, roomId, type: 1, content });
  const after = `,"bizCode":5555,"data":${JSON.stringify(inner)},"msgId":"${id}"}`;
  // All ids here have as many digits as the sender's.
  const [head, tail] = packet(BIZ, `{"appId":10001,"userId":${"#".repeat(String(sender.user).length)}${after}`).split(/#+/);
  for (const member of sender.room) {
    if (member === sender) continue;
    member.inFlight.add(id);
    member.socket.send(head + member.user + tail);
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false }, () =>
  console.log(`ws listening on 127.0.0.1:${server.address().port}`));

server.on("connection", (socket, request) => {
  const [, , user, , roomId] = request.url.split("/");
  if (!rooms.has(roomId)) rooms.set(roomId, new Set());
  const member = { socket, user: Number(user), room: rooms.get(roomId), inFlight: new Set() };
  member.room.add(member);
  socket.send(packet(LOGIN, `{"appId":10001,"userId":${member.user},"data":"true"}`));
  socket.on("message", (text) => {
    const { code, body } = JSON.parse(text);
    const { data, msgId: acked } = JSON.parse(body);
    if (code === BIZ) fanOut(member, data);
    else if (code === ACK) member.inFlight.delete(acked);
  });
  socket.on("close", () => member.room.delete(member));
  socket.on("error", () => {}); // a reset; "close" follows
});
