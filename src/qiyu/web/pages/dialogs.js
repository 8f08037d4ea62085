// @ts-check
/** What is asked in a window of its own: signing in, going live, and what to do about somebody. */

import {CallFailed, call} from "./api.js";
import {avatar, fill, h, icon, say} from "./dom.js";
import {session} from "./session.js";

/**
 * @param {import("./dom.js").TextRef} title
 * @param {(close: () => void) => (Node|false|null|undefined)[]} content
 * @param {string} [kind] a class
 */
export function openDialog(title, content, kind = "") {
  const close = () => dialog.close();
  const heading = h("h2", {id: `dialog-${++count}`, t: title});
  const dialog = h(
    "dialog", {class: kind, "aria-labelledby": heading.id},
    h("div", {class: "dialog-head"}, heading,
      h("button", {class: "round quiet", type: "button", label: "close", on: {click: close}}, icon("close"))),
    ...content(close),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    if (event.target === dialog) close(); // beside it
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

let count = 0;

/**
 * A form whose submission is `submit`, and which shows why that failed.
 *
 * @param {Node[]} fields @param {import("./dom.js").TextRef} action
 * @param {(values: Record<string, string>) => Promise<void>} submit
 */
function form(fields, action, submit) {
  const problem = h("p", {class: "problem", role: "alert", hidden: true});
  const button = h("button", {class: "primary wide", type: "submit", t: action});
  const element = h("form", {novalidate: false}, ...fields, problem, button);
  element.addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    problem.hidden = true;
    button.disabled = true;
    try {
      const values = Object.fromEntries(new FormData(element));
      await submit(/** @type {Record<string, string>} */ (values));
    } catch (error) {
      problem.hidden = false;
      say(problem, "t", whyNot(error));
    } finally {
      button.disabled = false;
    }
  });
  return element;
}

/** @param {unknown} error @returns {import("./dom.js").TextRef} */
export function whyNot(error) {
  if (!(error instanceof CallFailed)) throw error;
  if (error.code === 429) return ["error.429", {n: Math.max(1, error.retryAfter)}];
  if (error.code === 0 || error.code === 401 || error.code === 501 || error.code === 503) return `error.${error.code}`;
  return ["error.other", {reason: error.reason}];
}

/**
 * @param {import("./dom.js").TextRef} label @param {Record<string, any>} props @param {import("./dom.js").TextRef} [hint]
 */
function field(label, props, hint) {
  const id = `field-${++count}`;
  const hintId = hint ? `${id}-hint` : undefined;
  return h(
    "div", {class: "field"},
    h("label", {for: id, t: label}),
    h("input", {id, "aria-describedby": hintId, ...props}),
    hint && h("p", {class: "hint", id: hintId, t: hint}),
  );
}

/** Sign in, or make an account where anybody may. @param {() => void} [then] once somebody is signed in */
export function openSignIn(then) {
  const body = h("div", {});
  const show = (/** @type {boolean} */ isNew) => {
    const tab = (/** @type {string} */ name, /** @type {boolean} */ opens) => h(
      "button",
      {type: "button", t: name, "aria-pressed": String(opens === isNew), on: {click: () => show(opens)}},
    );
    const done = () => {
      dialog.close();
      then?.();
    };
    const name = field("sign.name", {
      name: "name", required: true, minlength: 2, maxlength: 30, autocomplete: "username", autofocus: true,
      autocapitalize: "none", spellcheck: "false",
    }, isNew ? "sign.name.hint" : undefined);
    const password = field("sign.password", {
      name: "password", type: "password", required: true, minlength: isNew ? 8 : 1, maxlength: 128,
      autocomplete: isNew ? "new-password" : "current-password",
    }, isNew ? "sign.password.hint" : undefined);
    const nickName = field("sign.nick", {name: "nickName", maxlength: 35, autocomplete: "nickname"}, "sign.nick.hint");
    fill(
      body,
      session.registrationOpen
        && h("div", {class: "segmented", role: "group", label: "sign.which"}, tab("sign.in", false), tab("sign.up", true)),
      isNew
        ? form([name, nickName, password], "sign.up.do", async (values) => {
          await session.register(values.name, values.password, values.nickName);
          done();
        })
        : form([name, password], "sign.in.do", async (values) => {
          await session.signIn(values.name, values.password);
          done();
        }),
    );
    body.querySelector("input")?.focus();
  };
  const dialog = openDialog("sign.title", () => [body], "narrow");
  show(false);
}

/** Go live, or learn who may. @param {(roomId: number) => void} then */
export function openGoLive(then) {
  if (!session.user?.canGoLive) {
    openDialog("golive.title", () => [
      h("p", {t: "golive.vip"}),
      h("p", {class: "muted", t: "golive.vip.how"}),
      h("pre", {}, h("code", {}, "qiyu user tag NAME vip")),
    ], "narrow");
    return;
  }
  const kind = (/** @type {string} */ value, /** @type {string} */ name, /** @type {boolean} */ isDefault) => h(
    "label", {class: "choice"}, h("input", {type: "radio", name: "type", value, checked: isDefault}), h("span", {t: name}),
  );
  const dialog = openDialog("golive.title", () => [
    form([
      field("golive.name", {name: "roomName", maxlength: 60, autofocus: true}, "golive.name.hint"),
      field("golive.cover", {name: "covertImg", maxlength: 255, pattern: "(https?://|/).*", inputmode: "url"}, "golive.cover.hint"),
      h("fieldset", {}, h("legend", {t: "golive.type"}), h("div", {class: "choices"},
        kind("1", "home.normal", true), kind("2", "home.pk", false))),
    ], "golive.do", async ({roomName, covertImg, type}) => {
      const {roomId} = await call("living/startingLiving", {type: Number(type), roomName, covertImg});
      dialog.close();
      then(roomId);
    }),
  ], "narrow");
}

/** Whether to do what cannot be undone. @param {string} title @param {string} body @param {string} action @param {() => Promise<void>} act */
export function confirm(title, body, action, act) {
  const dialog = openDialog(title, () => [
    h("p", {t: body}),
    form([], action, async () => {
      await act();
      dialog.close();
    }),
  ], "narrow danger");
}

/** For how long the anchor may send somebody away, in seconds; 0: until the room is closed. */
const TERMS = [["term.10m", 600], ["term.1h", 3600], ["term.room", 0]];

/**
 * Somebody's card: write to them; and, for the anchor of the room, mute and remove.
 *
 * @param {{userId: number, name: string, avatar: string}} who
 * @param {{roomId: number, isAnchor: boolean, isMuted: boolean, isSelf: boolean, write: () => void, note: (text: import("./dom.js").TextRef) => void}} where
 */
export function openCard(who, where) {
  const problem = h("p", {class: "problem", role: "alert", hidden: true});
  const act = async (/** @type {string} */ path, /** @type {number} */ seconds, /** @type {string} */ done) => {
    try {
      await call(path, {roomId: where.roomId, userId: who.userId, seconds});
      dialog.close();
      where.note([done, {name: who.name}]);
    } catch (error) {
      problem.hidden = false;
      say(problem, "t", whyNot(error));
    }
  };
  const terms = (/** @type {string} */ name, /** @type {string} */ path, /** @type {string} */ done) => h(
    "fieldset", {}, h("legend", {t: name}),
    h("div", {class: "choices"}, ...TERMS.map(([term, seconds]) => h(
      "button", {type: "button", t: term, label: [`${name}.for`, {term: {t: term}}], on: {click: () => act(path, Number(seconds), done)}},
    ))),
  );
  const dialog = openDialog(["card.title", {name: who.name}], (close) => [
    h("div", {class: "card-who"}, avatar({...who, url: who.avatar}), h("div", {}, h("strong", {}, who.name), h("span", {class: "muted"}, `ID ${who.userId}`))),
    !where.isSelf && h("button", {class: "primary wide", type: "button", t: "card.write", on: {click: () => {
      close();
      where.write();
    }}}, icon("chat"), ""),
    where.isAnchor && !where.isSelf && h(
      "div", {class: "moderation"},
      where.isMuted
        ? h("button", {class: "wide", type: "button", t: "card.unmute", on: {click: () => act("living/unmute", 0, "note.unmuted")}})
        : terms("card.mute", "living/mute", "note.muted"),
      terms("card.remove", "living/remove", "note.removed"),
    ),
    problem,
  ], "narrow");
}
