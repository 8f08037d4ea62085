// @ts-check
/**
 * Plays a room's picture: fragmented MP4 from a WebSocket, through Media Source Extensions (docs/video.md).
 *
 * The server sends a text, the MIME type of what follows, then binary messages: a header, then a frame each. A text
 * again means that all begins anew, an empty one that there is no picture just now.
 *
 * It stays close to the live edge: further behind than JUMP_SECONDS it jumps there, further than FAST_SECONDS it plays
 * a little faster until it is near. Where it has run dry more than once, it keeps more of a distance.
 */

const JUMP_SECONDS = 1.5;
const FAST_SECONDS = 0.35;
const NEAR_SECONDS = 0.2;
const FAST = 1.1;
const KEPT_SECONDS = 5; // behind what is shown
const KEPT_AT_MOST = 30; // where somebody paused
const SILENT_MS = 3000;
const RETRY_MS = [500, 8000];
/** Close codes after which nobody comes back: the room is closed, or whoever watches may not. */
const FINAL = new Set([1000, 4001, 4002, 4003]);

const Source = /** @type {typeof MediaSource|undefined} */ (
  /** @type {any} */ (globalThis).ManagedMediaSource ?? globalThis.MediaSource);

/**
 * Play `url` (ws:, wss:; or http:, https: for an engine's HLS where the browser has that) in `video`, and come back
 * by itself until closed.
 *
 * `login` is the body of a LOGIN packet, or a function that gives one, asked again for each connection.
 * `onState` is told `connecting`, `waiting` (no picture now), `playing`, `ended` (for good) or `unsupported`.
 *
 * @param {HTMLVideoElement} video @param {string} url
 * @param {{login?: object|(() => object|Promise<object>)|null, onState?: (state: string) => void}} [options]
 * @returns {{close: () => void}}
 */
export function play(video, url, {login = null, onState = () => {}} = {}) {
  return /^https?:/.test(url) ? new Address(video, url, onState) : new Player(video, url, login, onState);
}

class Player {
  #video; #url; #login; #tell;
  #state = "";
  #retries = 0;
  #margin = 0; // seconds of distance that it has learnt to keep
  #heard = 0; // when the last frame came
  #type = "";
  /** @type {Uint8Array[]} */ #queue = [];
  /** @type {WebSocket|null} */ #socket = null;
  /** @type {MediaSource|null} */ #source = null;
  /** @type {SourceBuffer|null} */ #buffer = null;
  #timer = setInterval(() => this.#look(), 250);
  /** @type {ReturnType<typeof setTimeout>|undefined} */ #retry;
  #isClosed = false;
  #events = new AbortController();

  /** @param {HTMLVideoElement} video @param {string} url @param {any} login @param {(state: string) => void} onState */
  constructor(video, url, login, onState) {
    this.#video = video;
    this.#url = url;
    this.#login = login;
    this.#tell = onState;
    const {signal} = this.#events;
    video.addEventListener("playing", () => this.#say("playing"), {signal});
    video.addEventListener("waiting", () => { this.#margin = Math.min(this.#margin + 0.1, 1); }, {signal});
    this.#connect();
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#events.abort();
    this.#socket?.close();
    this.#reset();
  }

  /** @param {string} state */
  #say(state) {
    if (state === this.#state || this.#isClosed) return;
    this.#state = state;
    this.#tell(state);
  }

  async #connect() {
    this.#say("connecting");
    let packet = "";
    try {
      const body = typeof this.#login === "function" ? await this.#login() : this.#login;
      if (body) packet = loginPacket(body);
    } catch { // the page is offline, or not logged in any more: as for any other connection that cannot be made
      this.#again();
      return;
    }
    if (this.#isClosed) return;
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => packet && socket.send(packet);
    socket.onmessage = ({data}) => typeof data === "string" ? this.#begin(data) : this.#take(new Uint8Array(data));
    socket.onclose = ({code}) => {
      if (FINAL.has(code)) this.#say("ended");
      else this.#again();
    };
  }

  #again() {
    if (this.#isClosed) return;
    const most = Math.min(RETRY_MS[0] * 2 ** this.#retries++, RETRY_MS[1]);
    this.#retry = setTimeout(() => this.#connect(), most * (0.5 + Math.random() / 2));
    this.#say("connecting");
  }

  /** Begin anew with what has this type. @param {string} type */
  #begin(type) {
    this.#retries = 0;
    this.#type = type;
    this.#reset();
    if (!type) this.#say("waiting");
    else if (!Source?.isTypeSupported(type)) this.#say("unsupported");
    else this.#open(type);
  }

  /** @param {string} type */
  #open(type) {
    const source = new (/** @type {typeof MediaSource} */ (Source))();
    this.#source = source;
    this.#video.disableRemotePlayback = true; // Safari's ManagedMediaSource wants it said
    this.#video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      URL.revokeObjectURL(this.#video.src);
      if (source !== this.#source) return;
      this.#buffer = source.addSourceBuffer(type);
      this.#buffer.addEventListener("updateend", () => this.#append());
      this.#append();
    }, {once: true});
    this.#start();
  }

  async #start() {
    try {
      await this.#video.play();
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "NotAllowedError" || this.#video.muted) return;
      this.#video.muted = true; // sound after a touch
      this.#video.play().catch(() => {});
    }
  }

  /** @param {Uint8Array} frame */
  #take(frame) {
    this.#heard = performance.now();
    if (this.#source) {
      this.#queue.push(frame);
      this.#append();
    }
  }

  #append() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || this.#source?.readyState !== "open") return;
    this.#follow();
    if (this.#trim(buffer) || !this.#queue.length) return;
    const data = this.#queue.length === 1 ? this.#queue[0] : joined(this.#queue);
    this.#queue = [];
    try {
      buffer.appendBuffer(/** @type {BufferSource} */ (data));
    } catch { // it is full, or broken: the server sends all that is needed to begin again
      this.#socket?.close(3000);
    }
  }

  /** Take out of the buffer what has been shown. @param {SourceBuffer} buffer @returns {boolean} whether it is busy now */
  #trim(buffer) {
    const {buffered} = buffer;
    if (!buffered.length) return false;
    const until = Math.max(this.#video.currentTime - KEPT_SECONDS, buffered.end(buffered.length - 1) - KEPT_AT_MOST);
    if (until < buffered.start(0) + KEPT_SECONDS) return false;
    buffer.remove(0, until);
    return true;
  }

  /** Stay close to the end of what there is. */
  #follow() {
    const video = this.#video;
    const {buffered} = video;
    if (!buffered.length || video.seeking) return;
    const last = buffered.length - 1;
    const end = buffered.end(last);
    const behind = end - video.currentTime;
    if (behind > JUMP_SECONDS + this.#margin || video.currentTime < buffered.start(0) || this.#isBeforeHole()) {
      if (!video.paused) video.currentTime = Math.max(buffered.start(last), end - NEAR_SECONDS - this.#margin);
    } else if (behind > FAST_SECONDS + this.#margin) {
      video.playbackRate = FAST;
    } else if (behind < NEAR_SECONDS + this.#margin) {
      video.playbackRate = 1;
    }
  }

  /** Whether it stands before a place where frames were left out. */
  #isBeforeHole() {
    const {buffered, currentTime, readyState} = this.#video;
    if (readyState > HTMLMediaElement.HAVE_CURRENT_DATA || buffered.length < 2) return false;
    return currentTime < buffered.start(buffered.length - 1);
  }

  /** A few times a second. */
  #look() {
    this.#follow();
    this.#margin = Math.max(0, this.#margin - 0.002);
    if (this.#state === "playing" && performance.now() - this.#heard > SILENT_MS) this.#say("waiting");
    else if (this.#state === "waiting" && this.#source && this.#video.readyState > 2 && !this.#video.paused) this.#say("playing");
  }

  #reset() {
    this.#queue = [];
    if (!this.#source) return;
    this.#source = this.#buffer = null;
    this.#video.playbackRate = 1;
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}

/** What a browser plays by itself, such as an engine's HLS. */
class Address {
  #video;
  #events = new AbortController();

  /** @param {HTMLVideoElement} video @param {string} url @param {(state: string) => void} onState */
  constructor(video, url, onState) {
    this.#video = video;
    onState("connecting");
    const {signal} = this.#events;
    video.addEventListener("playing", () => onState("playing"), {signal});
    video.addEventListener("waiting", () => onState("waiting"), {signal});
    video.addEventListener("ended", () => onState("ended"), {signal});
    video.addEventListener("error", () => onState("unsupported"), {signal});
    video.src = url;
    video.play().catch(() => {});
  }

  close() {
    this.#events.abort();
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}

/** @param {object} body */
function loginPacket(body) {
  const text = JSON.stringify(body);
  return JSON.stringify({magic: 18673, code: 1001, len: text.length, body: text});
}

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
