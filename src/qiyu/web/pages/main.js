// @ts-check
/** The page: its head, and below it the view that the address names after its #. */

import {openSignIn} from "./dialogs.js";
import {avatar, fill, h, icon, say} from "./dom.js";
import {goLive, homeView} from "./home.js";
import {LANGUAGES, currentLanguage, onLanguage, setLanguage, text} from "./i18n.js";
import {keep, kept} from "./keep.js";
import {closeMessages, toggleInbox} from "./messages.js";
import {roomView} from "./room.js";
import {session} from "./session.js";
import {statusBar} from "./status.js";

/** @type {{element: HTMLElement, title: any, close: () => void}|null} */
let view = null;
const place = h("div", {class: "view"});
const who = h("div", {class: "who"});
const unread = h("span", {class: "unread", hidden: true});
const inboxButton = h("button", {class: "round quiet", type: "button", hidden: true, on: {click: toggleInbox}}, icon("chat"), unread);
const languageButton = h("button", {class: "quiet language", type: "button", label: "language", hint: "language", on: {click: nextLanguage}}, icon("globe"), h("span", {t: "language.short"}));
const themeButton = h("button", {class: "round quiet", type: "button", on: {click: nextTheme}});
const head = h(
  "header", {class: "head"},
  h("a", {class: "brand", href: "#/", label: "home"}, h("span", {class: "brand-mark", "aria-hidden": "true"}), h("span", {class: "brand-name"}, "qiyu")),
  h("nav", {label: "nav"},
    h("button", {class: "golive", type: "button", on: {click: () => goLive(go)}}, icon("live"), h("span", {t: "golive"})),
    inboxButton, languageButton, themeButton, who),
);

/** @param {string} hash */
function go(hash) {
  if (location.hash === hash) show();
  else location.hash = hash;
}

function show() {
  const isFirst = !view;
  view?.close();
  const room = /^#\/room\/([1-9][0-9]{0,15})$/.exec(location.hash);
  view = room ? roomView(Number(room[1]), go) : homeView(go);
  document.body.dataset.view = room ? "room" : "home";
  fill(place, view.element);
  setTitle();
  window.scrollTo(0, 0);
  if (!isFirst) view.element.focus({preventScroll: true});
}

function setTitle() {
  if (!view) return;
  const title = typeof view.title === "function" ? view.title() : text(view.title);
  document.title = `${title} · qiyu`;
}

function showUser() {
  const {user} = session;
  inboxButton.hidden = !user;
  fill(who, user
    ? h("details", {class: "menu"},
      h("summary", {label: ["menu", {name: user.nickName}]}, avatar({name: user.nickName, userId: user.userId, url: user.avatar})),
      h("div", {class: "menu-body"}, h("strong", {}, user.nickName), h("span", {class: "muted"}, `ID ${user.userId}`),
        h("button", {type: "button", t: "sign.out", on: {click: signOut}})))
    : h("button", {class: "primary", type: "button", t: "sign.in", on: {click: () => openSignIn()}}));
}

async function signOut() {
  try {
    await session.signOut();
    go("#/");
  } catch {
    // nobody answers: then one is signed in still, and the menu says so
  }
}

function showUnread() {
  const n = session.inbox?.unread ?? 0;
  unread.hidden = !n;
  unread.textContent = n > 99 ? "99+" : String(n);
  say(inboxButton, "label", n ? ["inbox.open.unread", {n}] : "inbox.open");
}

function nextLanguage() {
  setLanguage(LANGUAGES[(LANGUAGES.indexOf(currentLanguage()) + 1) % LANGUAGES.length]);
}

function isDark() {
  return kept("theme") ? kept("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nextTheme() {
  keep("theme", isDark() ? "light" : "dark");
  document.documentElement.dataset.theme = kept("theme") ?? "";
  showTheme();
}

function showTheme() {
  fill(themeButton, icon(isDark() ? "sun" : "moon"));
  say(themeButton, "label", isDark() ? "theme.light" : "theme.dark");
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(/** @type {Node} */ (event.target))) menu.removeAttribute("open");
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.menu[open]")?.removeAttribute("open");
});
window.addEventListener("hashchange", () => {
  closeMessages();
  show();
});
onLanguage(setTitle);
session.on("user", showUser);
session.on("inbox", showUnread);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
showTheme();
showUser();
document.body.prepend(h("a", {class: "skip", href: "#view", t: "skip", on: {click: (/** @type {Event} */ event) => {
  event.preventDefault();
  view?.element.focus();
}}}), head, statusBar(), place);
session.load().catch(() => {}).finally(() => {
  showUnread();
  show();
});
