// @ts-check
/** The picture of a room: the video where there is one, else the cover; and what stands over it. */

import {call} from "./api.js";
import {fill, h, icon} from "./dom.js";
import {keep, kept} from "./keep.js";
import {session} from "./session.js";

export class Stage {
  #covers = h("div", {class: "stage-cover"});
  #video = h("video", {class: "video", playsinline: true, autoplay: true, muted: true, hidden: true, label: "stage.video"});
  #badge = h("span", {class: "badge live", hidden: true, t: "onair"});
  #waiting = h("span", {class: "badge wait", hidden: true, t: "stage.wait"});
  #message = h("div", {class: "stage-message", role: "status", hidden: true});
  #controls = h("div", {class: "stage-controls"});
  #playUrl = "";
  #isOnAir = false;
  /** @type {{close: () => void}|null} */ #player = null;
  #starting = 0; // counts up, so that a player that comes too late is known
  #isClosed = false;

  /** @param {HTMLElement} danmaku */
  constructor(danmaku) {
    this.element = h(
      "section", {class: "stage", label: "stage.label"},
      this.#covers, this.#video, danmaku,
      h("div", {class: "stage-top"}, this.#badge, this.#waiting), this.#message, this.#controls,
    );
    this.#video.volume = Number(kept("volume") ?? 1);
    const sound = this.addSwitch("sound", "stage.sound", false, (isOn) => {
      this.#video.muted = !isOn;
    }, "mute");
    this.#video.addEventListener("volumechange", () => {
      keep("volume", String(this.#video.volume));
      sound.setAttribute("aria-pressed", String(!this.#video.muted));
    });
    if (document.fullscreenEnabled) {
      this.#controls.append(h(
        "button", {class: "round stage-button", type: "button", label: "stage.full", hint: "stage.full", on: {click: () => this.#fullScreen()}},
        icon("full"),
      ));
    }
  }

  /**
   * @param {any} picture @param {string} name @param {boolean} isOn @param {(isOn: boolean) => void} change
   * @param {any} [off] the icon while it is off
   */
  addSwitch(picture, name, isOn, change, off = picture) {
    const button = h("button", {class: "round stage-button", type: "button", label: name, hint: name, "aria-pressed": String(isOn)}, icon(isOn ? picture : off));
    button.addEventListener("click", () => {
      const turned = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(turned));
      fill(button, icon(turned ? picture : off));
      change(turned);
    });
    this.#controls.append(button);
    return button;
  }

  /** @param {{cover?: Node, playUrl?: string|null, isOnAir?: boolean}} what */
  set({cover, playUrl, isOnAir}) {
    if (cover) fill(this.#covers, cover);
    if (playUrl !== undefined) this.#playUrl = playUrl ?? "";
    if (isOnAir !== undefined) this.#isOnAir = isOnAir === true;
    this.#badge.hidden = !this.#isOnAir;
    if (this.#isOnAir && this.#playUrl) this.#play();
    else this.#stop();
  }

  /** Say something in place of the picture. @param {{title: any, detail?: string, action: any, act: () => void}} what */
  show({title, detail = "", action, act}) {
    fill(this.#message, h("p", {class: "stage-title", t: title}), detail && h("p", {}, detail),
      h("button", {class: "primary", type: "button", t: action, on: {click: act}}));
    this.#message.hidden = false;
  }

  hide() {
    this.#message.hidden = true;
  }

  close() {
    this.#isClosed = true;
    this.#stop();
    this.#badge.hidden = true;
  }

  async #play() {
    if (this.#player || this.#isClosed) return;
    const starting = ++this.#starting;
    this.#waiting.hidden = false;
    const {play} = await import("./player.js");
    if (starting !== this.#starting) return;
    this.#player = play(this.#video, this.#playUrl, {
      login: async () => ({appId: 10001, userId: session.user?.userId, token: (await call("im/getImConfig")).token}),
      onState: (/** @type {string} */ state) => {
        if (starting !== this.#starting) return;
        const isPlaying = state === "playing";
        if (isPlaying) this.#video.hidden = false;
        else if (state === "ended" || state === "unsupported") this.#video.hidden = true;
        this.#waiting.hidden = isPlaying || !this.#video.hidden || state === "unsupported"; // a still picture is one
      },
    });
  }

  #stop() {
    this.#starting++;
    this.#player?.close();
    this.#player = null;
    this.#video.hidden = true;
    this.#waiting.hidden = true;
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen().catch(() => {});
  }
}

