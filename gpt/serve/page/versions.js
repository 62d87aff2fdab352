// The versions of a text or a conversation. Each continuation is a new version, and the earlier ones stay.

import { element } from "./dom.js";

/** Versions with buttons to go back and forward. */
export class Versions {
  /** box: the element for the buttons. onShow: called with the version that is to be shown. */
  constructor(box, onShow) {
    this.list = [];
    this.index = -1;
    this.onShow = onShow;
    this.back = element("button", { type: "button", text: "‹ Back", onclick: () => this.go(this.index - 1) });
    this.forward = element("button", { type: "button", text: "Forward ›", onclick: () => this.go(this.index + 1) });
    this.label = element("span", { class: "quiet" });
    this.box = box;
    box.append(this.back, this.label, this.forward);
    this.update();
  }

  get current() {
    return this.list[this.index] ?? null;
  }

  /** Add a version at the end, and show it. */
  add(version) {
    this.list.push(version);
    this.go(this.list.length - 1);
  }

  /** Forget all versions. */
  clear() {
    this.list = [];
    this.go(-1);
  }

  go(index) {
    this.index = index;
    this.update();
    this.onShow(this.current);
  }

  update() {
    this.box.hidden = this.list.length < 2;
    this.back.disabled = this.index <= 0;
    this.forward.disabled = this.index >= this.list.length - 1;
    this.label.textContent = `Version ${this.index + 1} of ${this.list.length}`;
  }
}
