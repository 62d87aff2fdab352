// The view that continues a text: the prompt, the tokens as they come, and the versions of the text.

import { byId, count, debounce } from "./dom.js";
import { json } from "./server.js";
import { announce, model, modelName, setCurrent, showError } from "./session.js";
import { textOf } from "./tokens.js";
import { TokenView } from "./token_view.js";
import { Versions } from "./versions.js";
import { writer } from "./writer.js";
import { chosen } from "./controls.js";

// A version is {model, prompt, tokens}: the model, the tokens of the prompt, which come from the server, and those that
// the model wrote.
const versions = new Versions(byId("text-versions"), show);
const view = new TokenView(byId("text-tokens"), pick);

/** Connect the view to its buttons. */
export function startText() {
  byId("text-form").addEventListener("submit", (event) => {
    event.preventDefault();
    write();
  });
  byId("more").addEventListener("click", () => continueFrom(versions.current));
  byId("stop").addEventListener("click", () => writer.stop());
  byId("prompt").addEventListener("input", debounce(countTokens, 300));
  writer.onState(update);
}

/** Write a text that follows the prompt. */
export async function write() {
  const options = chosen();
  if (!options) return;
  const version = { model: modelName(), prompt: [], tokens: [] };
  versions.add(version);
  await run(version, { prompt: byId("prompt").value, ...options });
}

/** Return {model, tokens} of the text to look at; of the prompt if there is no other text. */
export async function currentOfText() {
  const { current } = versions;
  if (current?.prompt.length) return { model: current.model, tokens: [...current.prompt, ...current.tokens] };
  const text = byId("prompt").value;
  const model = modelName();
  return { model, tokens: text ? (await json("/api/tokenize", { body: { model, text } })).tokens : [] };
}

async function continueFrom(version) {
  const options = chosen();
  if (!options) return;
  const ids = version.prompt.map((token) => token.id);
  await run(version, { ids, continuation: version.tokens.map((token) => token.id), ...options });
}

async function pick(place, alternative) {
  const { model, prompt, tokens } = versions.current;
  const at = place - prompt.length;
  const next = { model, prompt, tokens: tokens.slice(0, at) };
  const stops = Boolean(alternative.stop);
  if (!stops) next.tokens.push({ ...alternative, alternatives: tokens[at].alternatives, picked: true });
  await writer.stop();
  if (stops) next.status = "The text ends here, as you have chosen.";
  versions.add(next);
  view.focus(stops ? place - 1 : place);
  if (!stops) await continueFrom(next);
}

async function run(version, body) {
  setCurrent("text");
  showError("text-error", null);
  const shown = () => versions.current === version;
  await writer.run(byId("text-status"), { model: version.model, ...body }, {
    prompt(tokens) {
      if (version.prompt.length) return;
      version.prompt = tokens;
      if (shown()) show(version);
    },
    token(token) {
      version.tokens.push(token);
      if (shown()) view.push(token);
    },
    done(status) {
      version.status = status;
      if (shown()) view.end();
      announce(`Done. ${textOf(version.tokens).slice(0, 500)}`);
    },
    error(message) {
      showError("text-error", message);
    },
  });
}

function show(version) {
  view.set(version ? [...version.prompt, ...version.tokens] : []);
  if (version && !writer.busy) {
    view.end();
    byId("text-status").textContent = version.status ?? "";
  }
  update();
}

function update() {
  const version = versions.current;
  const some = Boolean(version && (version.prompt.length || version.tokens.length));
  byId("text-empty").hidden = Boolean(version);
  byId("stop").disabled = !writer.busy;
  byId("write").disabled = writer.busy;
  byId("more").disabled = writer.busy || !some;
}

async function countTokens() {
  const text = byId("prompt").value;
  const label = byId("prompt-count");
  if (!text) {
    label.textContent = "";
    return;
  }
  try {
    const { count: number } = await json("/api/tokenize", { body: { model: modelName(), text, only_count: true } });
    if (text !== byId("prompt").value) return;
    const { context } = model();
    const cut = number > context ? `, of which the model sees the last ${count(context)}` : "";
    label.textContent = `${count(number)} token${number === 1 ? "" : "s"}${cut}`;
  } catch (error) {
    label.textContent = error.message;
  }
}
