// What all views share: the options of the server, the chosen model, messages, and which text was written last.

import { byId } from "./dom.js";

export const session = { options: null, current: "text" };

/** Return the name of the chosen model. */
export function modelName() {
  return byId("model").value;
}

/** Return what the server says about the chosen model. */
export function model() {
  return session.options.models.find(({ id }) => id === modelName());
}

/** Say which view has written last, "text" or "chat". Attention and logit lens look at its text. */
export function setCurrent(view) {
  session.current = view;
}

/** Show an error in the element of an id, or hide it for null. */
export function showError(id, message) {
  const box = byId(id);
  box.hidden = message === null;
  box.textContent = message ?? "";
  if (message !== null) announce(message);
}

/** Let a screen reader say a text. Tokens are not announced one by one. */
export function announce(text) {
  byId("live").textContent = text;
}
