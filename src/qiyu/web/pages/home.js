// @ts-check
/** The rooms that are open, as cards; they change while one looks. */

import {call} from "./api.js";
import {openGoLive, openSignIn} from "./dialogs.js";
import {avatar, cover, fill, h, icon, say} from "./dom.js";
import {number} from "./i18n.js";
import {keep, kept} from "./keep.js";
import {session} from "./session.js";

const PAGE = 24;
const REFRESH_MS = 4000;
const MOST_REFRESHED = 96; // whole pages of 24, in one call

/** @param {(hash: string) => void} go */
export function homeView(go) {
  let type = kept("type") === "2" ? 2 : 1;
  /** @type {Map<number, {room: any, element: any}>} */
  let cards = new Map();
  let hasNext = false;
  let isLoading = false;
  let generation = 0;
  /** @type {any} */
  let timer = null;

  const grid = h("ul", {class: "cards"});
  const more = h("button", {class: "more", type: "button", hidden: true, t: "home.more", on: {click: () => loadMore()}});
  const empty = h("div", {class: "empty", hidden: true});
  const problem = h("p", {class: "problem", role: "status", hidden: true, t: "home.problem"});
  const tabs = h("div", {class: "segmented", role: "group", label: "home.which"}, tab(1, "home.normal"), tab(2, "home.pk"));
  const element = h(
    "main", {class: "home", tabindex: "-1"},
    h("div", {class: "home-head"}, h("h1", {t: "home.title"}), tabs),
    problem, grid, empty, more,
  );

  /** @param {number} value @param {string} name */
  function tab(value, name) {
    return h("button", {type: "button", t: name, "aria-pressed": String(value === type), on: {click: () => choose(value)}});
  }

  /** @param {number} value */
  function choose(value) {
    type = value;
    keep("type", String(value));
    [...tabs.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index + 1 === type)));
    cards = new Map();
    fill(grid);
    refresh();
  }

  async function refresh() {
    clearTimeout(timer);
    const asked = ++generation;
    if (!document.hidden) {
      try {
        const size = Math.min(MOST_REFRESHED, Math.max(PAGE, Math.ceil(cards.size / PAGE) * PAGE));
        const page = await call("living/list", {type, page: 1, pageSize: size});
        if (asked !== generation) return;
        show(page.list, page.hasNext, size);
        problem.hidden = true;
      } catch {
        if (asked !== generation) return;
        problem.hidden = false;
      }
    }
    timer = setTimeout(refresh, REFRESH_MS);
  }

  /** The newest rooms; those below them that were loaded before stay. @param {any[]} rooms @param {boolean} next @param {number} size */
  function show(rooms, next, size) {
    const old = next ? [...cards.values()].slice(size) : [];
    if (!old.length) hasNext = next;
    const before = cards;
    cards = new Map();
    for (const room of [...rooms, ...old.map((each) => each.room)]) {
      if (cards.has(room.id)) continue;
      const known = before.get(room.id);
      if (known) update(known, room);
      cards.set(room.id, known ?? {room, element: card(room)});
    }
    for (const [id, each] of before) if (!cards.has(id)) each.element.remove();
    let place = grid.firstElementChild;
    for (const each of cards.values()) {
      if (each.element === place) place = place.nextElementSibling;
      else grid.insertBefore(each.element, place);
    }
    more.hidden = !hasNext;
    if (!cards.size && empty.hidden) fill(empty, ...nobody());
    empty.hidden = cards.size > 0;
  }

  async function loadMore() {
    if (isLoading || !hasNext) return;
    isLoading = true;
    const asked = generation;
    try {
      const page = await call("living/list", {type, page: Math.floor(cards.size / PAGE) + 1, pageSize: PAGE});
      if (asked !== generation) return; // a refresh came in between, and the places are others now
      hasNext = page.hasNext;
      for (const room of page.list) {
        if (cards.has(room.id)) continue;
        const each = {room, element: card(room)};
        cards.set(room.id, each);
        grid.append(each.element);
      }
      more.hidden = !hasNext;
    } catch {
      problem.hidden = false;
    } finally {
      isLoading = false;
      atEnd.unobserve(more); // so that it is told again, should the end still be in sight
      if (problem.hidden) atEnd.observe(more);
    }
  }

  /** @param {any} room */
  function card(room) {
    const anchorName = room.anchorNickName ?? String(room.anchorId);
    const watching = h("span", {class: "count", role: "img", label: ["home.watching", {n: room.watchNum}]}, icon("eye"), h("b", {}, number(room.watchNum)));
    const likes = h("span", {class: "count", role: "img", label: ["home.likes", {n: room.goodNum}]}, icon("heart"), h("b", {}, number(room.goodNum)));
    const onAir = h("span", {class: "badge live", hidden: room.onAir === false, t: "onair"});
    const element = h(
      "li", {},
      h("a", {class: "card", href: `#/room/${room.id}`},
        h("div", {class: "card-cover"}, cover({name: room.roomName, url: room.covertImg}), onAir, h("div", {class: "card-counts"}, watching, likes)),
        h("div", {class: "card-about"}, avatar({name: anchorName, userId: room.anchorId, url: room.anchorAvatar}),
          h("div", {class: "card-names"}, h("h2", {}, room.roomName), h("p", {}, anchorName)))),
    );
    element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      if (session.user) return;
      event.preventDefault();
      openSignIn(() => go(`#/room/${room.id}`));
    });
    element.counts = {watching, likes, onAir};
    return element;
  }

  /** @param {{room: any, element: any}} known @param {any} room */
  function update(known, room) {
    if (["roomName", "covertImg", "anchorNickName", "anchorAvatar"].some((name) => known.room[name] !== room[name])) {
      const element = card(room);
      known.element.replaceWith(element);
      Object.assign(known, {room, element});
      return;
    }
    const {watching, likes, onAir} = known.element.counts;
    if (known.room.watchNum !== room.watchNum) count(watching, "home.watching", room.watchNum);
    if (known.room.goodNum !== room.goodNum) count(likes, "home.likes", room.goodNum);
    onAir.hidden = room.onAir === false;
    known.room = room;
  }

  /** @param {Element} element @param {string} name @param {number} n */
  function count(element, name, n) {
    say(element, "label", [name, {n}]);
    /** @type {Element} */ (element.lastElementChild).textContent = number(n);
  }

  function nobody() {
    return [
      h("div", {class: "empty-picture", "aria-hidden": "true"}, icon("live")),
      h("h2", {t: "home.nobody"}), h("p", {class: "muted", t: "home.nobody.hint"}),
      h("button", {class: "primary", type: "button", t: "golive", on: {click: () => goLive(go)}}),
    ];
  }

  const atEnd = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) loadMore();
  }, {rootMargin: "400px"});
  atEnd.observe(more);
  const seen = () => document.hidden || refresh();
  document.addEventListener("visibilitychange", seen);
  refresh();

  return {
    element,
    title: "home.title",
    close() {
      generation++;
      clearTimeout(timer);
      atEnd.disconnect();
      document.removeEventListener("visibilitychange", seen);
    },
  };
}

/** @param {(hash: string) => void} go */
export function goLive(go) {
  if (!session.user) openSignIn(() => goLive(go));
  else openGoLive((roomId) => go(`#/room/${roomId}`));
}
