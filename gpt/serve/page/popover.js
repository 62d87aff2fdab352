// The list of the likeliest tokens at one place, shown next to a token.

import { byId, element } from "./dom.js";
import { nameOf, percent } from "./tokens.js";

const SHOW_AFTER = 120; // milliseconds; a pointer that crosses a text opens nothing
const HIDE_AFTER = 200; // milliseconds, in which the pointer may cross from the token to the list

/** The list. There is one on the page, because only one is ever open. */
class Popover {
  constructor() {
    this.box = byId("popover");
    this.anchor = null;
    this.pending = null; // the element whose list is shown soon
    this.returning = false;
    this.timer = 0;
    this.box.addEventListener("pointerenter", () => clearTimeout(this.timer));
    this.box.addEventListener("pointerleave", () => this.hideSoon());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("focusout", (event) => {
      const to = event.relatedTarget;
      if (to && !this.box.contains(to) && to !== this.anchor) this.hide();
    });
    window.addEventListener("resize", () => this.hide());
    document.addEventListener("pointerdown", (event) => {
      if (this.open && !this.box.contains(event.target) && !this.anchor.contains(event.target)) this.hide();
    });
  }

  get open() {
    return this.anchor !== null;
  }

  /**
   * Show the list that `content` returns after a short time; see `show`. Call it when the pointer moves, because a new
   * text may come to lie under a pointer that rests.
   */
  showSoon(anchor, content) {
    if (anchor === this.pending) return;
    clearTimeout(this.timer);
    if (anchor === this.anchor) return;
    this.pending = anchor;
    this.timer = setTimeout(() => anchor.isConnected && this.show(anchor, content()), SHOW_AFTER);
  }

  /**
   * Show a list next to an element.
   * content: {token, before, place, alternatives, note, pick}. token: the chosen one, or null. before: the bytes of an
   * incomplete character before it. pick: called with an alternative; without it the list is only read.
   */
  show(anchor, content) {
    clearTimeout(this.timer);
    this.pending = null;
    this.anchor?.removeAttribute("aria-describedby");
    this.anchor = anchor;
    this.pick = content.pick;
    this.box.replaceChildren(...this.rows(content));
    this.box.hidden = false;
    this.place(anchor);
    anchor.setAttribute("aria-describedby", "popover-title");
  }

  hideSoon() {
    clearTimeout(this.timer);
    this.pending = null;
    this.timer = setTimeout(() => {
      if (!this.box.contains(document.activeElement)) this.hide();
    }, HIDE_AFTER);
  }

  hide() {
    clearTimeout(this.timer);
    this.pending = null;
    this.anchor?.removeAttribute("aria-describedby");
    this.anchor = null;
    this.box.hidden = true;
  }

  /** Move the focus into the list, if it has something to choose. */
  enter() {
    this.box.querySelector("button")?.focus();
  }

  rows({ token, before, place, alternatives, note, pick }) {
    const title = element("p", { class: "popover-title", id: "popover-title" });
    if (token) {
      title.append(
        element("b", { class: "token-name", text: nameOf(token, before) }),
        token.logprob === undefined ? "" : ` ${percent(token.logprob)}`,
        element("span", { class: "quiet", text: place }),
      );
    } else {
      title.append(element("span", { class: "quiet", text: place }));
    }
    const kind = pick ? "button" : "div";
    const list = element("ol", { class: "bars", "aria-label": "The likeliest tokens" });
    for (const other of alternatives ?? []) {
      const chosen = token && other.id === token.id;
      const name = nameOf(other, before);
      const bar = element("span", { class: "bar" });
      bar.style.width = `${(100 * Math.exp(other.logprob)).toFixed(2)}%`;
      const row = element(
        kind,
        {
          class: chosen ? "alternative chosen" : "alternative",
          type: pick ? "button" : null,
          "aria-current": chosen ? "true" : null,
          "aria-label": `${name}, ${percent(other.logprob)}${chosen ? ", chosen" : ""}`,
          onclick: pick ? () => this.choose(other) : null,
        },
        element("span", { class: "token-name", text: name }),
        element("span", { class: "track" }, bar),
        element("span", { class: "percent", text: percent(other.logprob) }),
      );
      list.append(element("li", {}, row));
    }
    return [title, list, note ? element("p", { class: "popover-note", text: note }) : null].filter(Boolean);
  }

  choose(alternative) {
    const pick = this.pick;
    this.hide();
    pick(alternative);
  }

  onKey(event) {
    const rows = [...this.box.querySelectorAll("button")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Escape" || (event.key === "ArrowUp" && at === 0)) {
      const anchor = this.anchor;
      this.returning = event.key === "Escape"; // The list does not open again for the focus that comes back.
      if (this.returning) this.hide();
      anchor?.focus();
      this.returning = false;
      event.preventDefault();
      event.stopPropagation();
    } else if (to !== undefined) {
      rows[Math.max(0, Math.min(rows.length - 1, to))]?.focus();
      event.preventDefault();
    }
  }

  place(anchor) {
    const rect = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const room = { width: document.documentElement.clientWidth, height: window.innerHeight };
    const left = Math.max(8, Math.min(rect.left, room.width - width - 8));
    const below = rect.bottom + 6;
    const top = below + height > room.height && rect.top - height - 6 > 0 ? rect.top - height - 6 : below;
    this.box.style.left = `${left + window.scrollX}px`;
    this.box.style.top = `${top + window.scrollY}px`;
  }
}

export const popover = new Popover();
