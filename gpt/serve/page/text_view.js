// The view that continues a text: the prompt, the tokens as they come, and the versions of the text.

import { byId, count, debounce } from "./dom.js";
import { json } from "./server.js";
import { announce, modelName, setCurrent, showError } from "./session.js";
import { textOf } from "./tokens.js";
import { TokenView } from "./token_view.js";
import { Versions } from "./versions.js";
import { writer } from "./writer.js";
import { chosen } from "./controls.js";

// A version is {prompt, tokens}: the tokens of the prompt, which come from the server, and those that the model wrote.
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
  const version = { prompt: [], tokens: [], reason: null };
  versions.add(version);
  await run(version, { prompt: byId("prompt").value, ...options });
}

/** Return the text to look at, as tokens; that of the prompt if there is no other. */
export async function tokensOfText() {
  const { current } = versions;
  if (current?.prompt.length) return [...current.prompt, ...current.tokens];
  const text = byId("prompt").value;
  if (!text) return [];
  return (await json("/api/tokenize", { body: { model: modelName(), text } })).tokens;
}

async function continueFrom(version) {
  const options = chosen();
  if (!options) return;
  const ids = version.prompt.map((token) => token.id);
  await run(version, { ids, continuation: version.tokens.map((token) => token.id), ...options });
}

async function pick(place, alternative) {
  const { prompt, tokens } = versions.current;
  const at = place - prompt.length;
  const next = { prompt, tokens: tokens.slice(0, at), reason: null };
  const stops = Boolean(alternative.stop);
  if (!stops) next.tokens.push({ ...alternative, alternatives: tokens[at].alternatives, picked: true });
  await writer.stop();
  versions.add(next);
  if (stops) {
    next.reason = "stop";
    update();
  } else {
    await continueFrom(next);
  }
}

async function run(version, body) {
  setCurrent("text");
  showError("text-error", null);
  const shown = () => versions.current === version;
  await writer.run(byId("text-status"), { model: modelName(), ...body }, {
    prompt(tokens) {
      if (version.prompt.length) return;
      version.prompt = tokens;
      if (shown()) show(version);
    },
    token(token) {
      version.tokens.push(token);
      if (shown()) view.push(token);
    },
    done(reason, status) {
      Object.assign(version, { reason, status });
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
    const { count: number } = await json("/api/tokenize", { body: { model: modelName(), text } });
    if (text === byId("prompt").value) label.textContent = `${count(number)} token${number === 1 ? "" : "s"}`;
  } catch (error) {
    label.textContent = error.message;
  }
}
