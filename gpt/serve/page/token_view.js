// A text as tokens: coloured by probability, with the likeliest alternatives of each, and with one tab stop.

import { element } from "./dom.js";
import { popover } from "./popover.js";
import { bytesOf, Characters, incompleteEnd, joined, nameOf, percent, stepOf } from "./tokens.js";

/**
 * The tokens of one text.
 * Each token is an element. A line is an element around its tokens, so that a new token changes the layout of its own
 * line only, and each line has its own direction of writing.
 */
export class TokenView {
  /** pick: called with (place, alternative) to continue from another token; null where nobody can choose one. */
  constructor(box, pick = null) {
    this.box = box;
    this.pick = pick;
    this.tokens = [];
    this.places = [];
    this.active = -1;
    box.addEventListener("pointermove", (event) => this.onPointer(event));
    box.addEventListener("pointerout", (event) => this.placeOf(event.target) >= 0 && popover.hideSoon());
    box.addEventListener("focusin", (event) => this.onFocus(event));
    box.addEventListener("focusout", (event) => {
      if (!popover.box.contains(event.relatedTarget)) popover.hide();
    });
    box.addEventListener("click", (event) => this.onClick(event));
    box.addEventListener("keydown", (event) => this.onKey(event));
    this.set([]);
  }

  /** Show other tokens. */
  set(tokens) {
    if (popover.open && this.box.contains(popover.anchor)) popover.hide();
    this.tokens = [];
    this.places = [];
    this.before = []; // the bytes before each token that belong to a character which it may complete
    this.pending = new Uint8Array();
    this.active = -1;
    this.characters = new Characters();
    this.incomplete = null;
    this.line = null;
    const all = document.createDocumentFragment();
    for (const token of tokens) this.append(token, all);
    this.box.replaceChildren(all);
  }

  /** Add a token at the end. */
  push(token) {
    this.append(token, this.box);
  }

  /** Show U+FFFD if the text ends inside a character. */
  end() {
    const rest = this.characters.end();
    if (rest && this.incomplete) this.incomplete.textContent = rest;
    this.characters = new Characters();
    this.incomplete = null;
  }

  append(token, box) {
    const place = this.tokens.length;
    const text = this.characters.add(token);
    const span = element("span", { class: this.classOf(token, text), "data-place": place, tabindex: -1 });
    span.textContent = token.special ?? text;
    if (token.logprob !== undefined) span.dataset.percent = percent(token.logprob);
    this.incomplete = text === "" && !token.special ? span : null;
    if (!this.line) {
      this.line = element("div", { class: "line", dir: "auto" });
      box.append(this.line);
    }
    this.line.append(span);
    if (text.endsWith("\n")) this.line = null;
    this.tokens.push(token);
    this.places.push(span);
    this.before.push(this.pending);
    this.pending = incompleteEnd(joined(this.pending, bytesOf(token)));
    if (place === 0) this.activate(0);
  }

  classOf(token, text) {
    const classes = ["token"];
    if (token.logprob !== undefined) classes.push(`p${stepOf(token.logprob)}`);
    if (token.picked) classes.push("picked");
    if (token.special) classes.push("special");
    else if (text === "") classes.push("part"); // The bytes of a character that a later token completes.
    else if (/^\n+$/.test(text)) classes.push("newline");
    else if (/^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$/u.test(text) && text !== "\t") classes.push("part"); // It has no width.
    return classes.join(" ");
  }

  /** Make a token the one that the Tab key reaches, with a name for screen readers. */
  activate(place) {
    const before = this.places[this.active];
    if (before) {
      before.tabIndex = -1;
      before.removeAttribute("role");
      before.removeAttribute("aria-label");
    }
    this.active = place;
    const span = this.places[place];
    const token = this.tokens[place];
    const chance = token.logprob === undefined ? "" : `, ${percent(token.logprob)}`;
    const name = nameOf(token, this.before[place]);
    span.tabIndex = 0;
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", `${name}${chance}, token ${place + 1} of ${this.tokens.length}`);
  }

  /** Move the focus to a token without opening its list. */
  focus(place) {
    popover.returning = true;
    this.places[place]?.focus({ preventScroll: true });
    popover.returning = false;
  }

  placeOf(target) {
    return Number(target.closest?.("[data-place]")?.dataset.place ?? -1);
  }

  content(place) {
    const token = this.tokens[place];
    const mayPick = this.pick && token.alternatives?.length;
    const note = token.alternatives ? null : "The model did not write this token.";
    return {
      token,
      before: this.before[place],
      place: `token ${place + 1}, id ${token.id}`,
      alternatives: token.alternatives,
      note: mayPick ? "Choose a token to continue the text from it." : note,
      pick: mayPick ? (alternative) => this.pick(place, alternative) : null,
    };
  }

  onPointer(event) {
    const place = this.placeOf(event.target);
    if (place >= 0 && event.pointerType !== "touch" && !popover.box.contains(document.activeElement)) {
      popover.showSoon(this.places[place], () => this.content(place));
    }
  }

  onFocus(event) {
    const place = this.placeOf(event.target);
    if (place < 0) return;
    this.activate(place);
    if (!popover.returning) popover.show(this.places[place], this.content(place));
  }

  onClick(event) {
    const place = this.placeOf(event.target);
    if (place >= 0 && popover.anchor !== this.places[place]) popover.show(this.places[place], this.content(place));
  }

  onKey(event) {
    const place = this.placeOf(event.target);
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.places.length - 1;
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      this.places[Math.max(0, Math.min(last, to))].focus();
    } else if (["Enter", " ", "ArrowDown"].includes(event.key)) {
      if (!popover.open) popover.show(this.places[place], this.content(place));
      popover.enter();
    } else if (event.key === "Escape" && popover.open) {
      popover.hide();
      event.stopPropagation();
    } else {
      return;
    }
    event.preventDefault();
  }
}
