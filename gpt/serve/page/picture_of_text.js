// A picture of the text that was written last, for which the server computes the numbers.

import { byId, count } from "./dom.js";
import { currentOfChat } from "./chat_view.js";
import { json } from "./server.js";
import { session, showError } from "./session.js";
import { currentOfText } from "./text_view.js";

/**
 * Connect a view to its buttons. Return a function that loads the picture, if the text is another one than before.
 *
 * name: the beginning of the identifiers of its elements, and its route. draw: called with the answer of the server.
 */
export function pictureOfText(name, draw) {
  const status = byId(`${name}-status`);
  const last = byId(`${name}-last`);
  let key = "";
  let turn = 0; // the number of the last load, whose answer alone is shown

  async function load(onlyNew = false) {
    const mine = ++turn;
    showError(`${name}-error`, null);
    try {
      const { model, ids } = await currentText();
      if (!ids.length) {
        status.textContent = "Write a text first, or type a prompt.";
        return;
      }
      if (onlyNew && key === `${model} ${ids}`) return;
      status.textContent = "The model reads the text …";
      const answer = await json(`/api/${name}`, { body: { model, ids, last: Number(last.value) } });
      if (mine !== turn) return;
      key = `${model} ${ids}`;
      const shown = count(answer.tokens.length);
      status.textContent = `The last ${shown} of ${count(ids.length)} tokens. The model has read ${count(answer.read)}.`;
      draw(answer);
    } catch (error) {
      status.textContent = "";
      showError(`${name}-error`, error.message);
    }
  }

  byId(`${name}-load`).addEventListener("click", () => load());
  last.addEventListener("change", () => load());
  return () => load(true);
}

/** Return {model, ids} of the text that was written last. */
async function currentText() {
  const { model, tokens } = (session.current === "chat" && currentOfChat()) || (await currentOfText());
  return { model, ids: tokens.map(({ id }) => id) };
}
