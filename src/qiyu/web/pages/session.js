// @ts-check
/** Who is signed in, and that user's one connection to the messaging side, whatever view is shown. */

import {CallFailed, call} from "./api.js";
import {Emitter} from "./emitter.js";
import {Inbox} from "./inbox.js";
import {QiyuClient} from "./qiyu-client.js";

/**
 * @typedef {object} User
 * @property {number} userId
 * @property {string} nickName
 * @property {string} avatar
 * @property {boolean} canGoLive
 */

/**
 * Events: `user` when somebody signs in or out; `state` and everything else that `QiyuClient` tells, under its name.
 */
class Session extends Emitter {
  /** @type {User|null} */ user = null;
  /** Whether anybody may make an account. */
  registrationOpen = true;
  /** @type {QiyuClient|null} */ client = null;
  /** @type {Inbox|null} */ inbox = null;

  /** Ask the server who this is. */
  async load() {
    const page = await call("home/initPage");
    this.registrationOpen = page.registrationOpen;
    const user = page.loginStatus
      ? {userId: page.userId, nickName: page.nickName, avatar: page.avatar, canGoLive: page.showStartLivingBtn}
      : null;
    const isSame = user?.userId === this.user?.userId;
    this.user = user;
    if (!isSame) this.#connect();
    this.emit("user", user);
  }

  /** @param {string} name @param {string} password */
  async signIn(name, password) {
    await call("user/login", {name, password});
    await this.load();
  }

  /** @param {string} name @param {string} password @param {string} nickName */
  async register(name, password, nickName) {
    await call("user/register", {name, password, nickName});
    await this.load();
  }

  async signOut() {
    this.client?.stop();
    await call("user/logout");
    await this.load();
  }

  #connect() {
    this.client?.stop();
    this.client = this.inbox = null;
    const user = this.user;
    if (!user) return;
    const client = new QiyuClient({userId: user.userId, token: access, ackDirect: "manual"});
    this.client = client;
    this.inbox = new Inbox(client, user);
    for (const name of ["message", "event", "entered", "roomRefused", "outgoing", "refused"]) {
      client.on(name, (event) => this.emit(name, event));
    }
    client.on("state", (state) => {
      if (client !== this.client) return;
      this.emit("state", state);
      if (state.status === "ended" && state.reason === "signedOut") {
        this.load().catch(() => {}); // what the page shows of somebody signed in goes, if the server says so too
      }
    });
    this.inbox.on("change", () => this.emit("inbox"));
    this.emit("inbox");
    client.start();
  }
}

/** A fresh token, and where to use it; null where nobody is signed in any more. */
async function access() {
  try {
    const config = await call("im/getImConfig");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    return {token: config.token, url: config.wsUrl ?? `${scheme}//${config.wsImServerAddress}/`};
  } catch (error) {
    if (error instanceof CallFailed && error.code === 401) return null;
    throw error;
  }
}

export const session = new Session();
