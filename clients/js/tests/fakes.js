/** A WebSocket whose other end is the test. */

export class FakeSocket {
  /** @type {FakeSocket[]} */
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }

  readyState = 0;
  sent = [];
  closed = false;

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  send(text) {
    const {magic, code, body} = JSON.parse(text);
    if (magic !== 18673) throw new Error(`magic ${magic}`);
    const fields = JSON.parse(body);
    if (typeof fields.data === "string" && fields.data) fields.data = JSON.parse(fields.data);
    this.sent.push({code, ...fields});
  }

  close() {
    this.closed = true;
    this.readyState = 3;
  }

  // What the server does

  open() {
    this.readyState = 1;
    this.onopen();
  }

  receive(code, body = {}) {
    const fields = {...body};
    if (fields.data !== undefined && typeof fields.data !== "string") fields.data = JSON.stringify(fields.data);
    const text = JSON.stringify(fields);
    this.onmessage?.({data: JSON.stringify({magic: 18673, code, len: text.length, body: text})});
  }

  drop(code = 1006) {
    this.readyState = 3;
    this.onclose?.({code});
  }

  /** Packets of a code that the client has sent. */
  of(code) {
    return this.sent.filter((packet) => packet.code === code);
  }
}

/** Let what waits for promises go on. */
export async function settle() {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}
