// The view of a conversation: its messages, the answers as tokens, and the versions of the conversation.

import { byId, element } from "./dom.js";
import { chosen } from "./controls.js";
import { announce, model, modelName, setCurrent, showError } from "./session.js";
import { textOf } from "./tokens.js";
import { TokenView } from "./token_view.js";
import { Versions } from "./versions.js";
import { writer } from "./writer.js";

// A version is {model, messages, prompt}. A message is {role, text} or {role, tokens}; `prompt` has the tokens of the
// last request, with the template.
const versions = new Versions(byId("chat-versions"), show);
let live = null; // the view of the answer that is written now

/** Connect the view to its buttons. */
export function startChat() {
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("chat-stop").addEventListener("click", () => writer.stop());
  byId("chat-new").addEventListener("click", startAgain);
  writer.onState(update);
  update();
}

/** Send the message that the user has typed. */
export async function send() {
  const text = byId("message").value;
  if (!text.trim() || !model().chat) return;
  if (!chosen()) return;
  byId("message").value = "";
  await ask([...(versions.current?.messages ?? []), { role: "user", text }]);
}

/** Return {model, tokens} of the conversation, with the tokens of the template; null without one. */
export function currentOfChat() {
  const { current } = versions;
  if (!current?.messages.length) return null;
  return { model: current.model, tokens: [...current.prompt, ...(current.messages.at(-1).tokens ?? [])] };
}

async function startAgain() {
  await writer.stop();
  if (versions.current) versions.add({ model: modelName(), messages: [], prompt: [] });
  byId("message").focus();
}

/** Let the model answer the last message. begin: the tokens that the answer begins with. */
async function ask(messages, begin = [], name = modelName()) {
  const options = chosen();
  if (!options) return;
  await writer.stop();
  const answer = { role: "assistant", tokens: [...begin] };
  const version = { model: name, messages: [...messages, answer], prompt: [] };
  versions.add(version);
  if (begin.length) live.focus(begin.length - 1);
  setCurrent("chat");
  showError("chat-error", null);
  const system = byId("system").value.trim();
  const sent = messages.map(({ role, text, tokens }) => ({ role, content: text ?? textOf(tokens) }));
  const body = {
    model: name,
    messages: system ? [{ role: "system", content: system }, ...sent] : sent,
    continuation: begin.map((token) => token.id),
    ...options,
  };
  const shown = () => versions.current === version;
  await writer.run(byId("chat-status"), body, {
    prompt(tokens, { forgotten }) {
      version.prompt = tokens;
      if (forgotten) showError("chat-error", `The context is full. The first ${forgotten} messages are left out.`);
    },
    token(token) {
      answer.tokens.push(token);
      if (shown()) live?.push(token);
    },
    done() {
      if (shown()) live?.end();
      announce(`Answer: ${textOf(answer.tokens).slice(0, 500)}`);
    },
    error(message) {
      showError("chat-error", message);
    },
  });
}

function show(version) {
  live = null;
  const messages = version?.messages ?? [];
  byId("messages").replaceChildren(...messages.map((message, place) => draw(messages, place)));
  update();
  byId("messages").lastElementChild?.scrollIntoView({ block: "nearest" });
}

function draw(messages, place) {
  const { role, text, tokens } = messages[place];
  const before = messages.slice(0, place);
  const who = role === "user" ? "You" : "Model";
  const box = element("article", { class: `message ${role}`, "aria-label": who });
  const head = element("div", { class: "message-head" }, element("span", { class: "who", text: who }));
  box.append(head);
  if (role === "user") {
    const shown = element("div", { class: "message-text", dir: "auto", text });
    box.append(shown);
    head.append(button("Edit", () => edit(box, shown, before, text)));
    return box;
  }
  const list = element("div", { class: "tokens", role: "group", "aria-label": "The answer, token by token" });
  const view = new TokenView(list, (at, alternative) => pick(before, tokens, at, alternative));
  view.set(tokens);
  if (!writer.busy) view.end();
  if (place === messages.length - 1) live = view;
  box.append(list);
  head.append(button("Retry", () => ask(before)));
  return box;
}

async function pick(before, tokens, at, alternative) {
  const kept = tokens.slice(0, at);
  const { model: name, prompt } = versions.current;
  if (alternative.stop) {
    await writer.stop();
    versions.add({ model: name, messages: [...before, { role: "assistant", tokens: kept }], prompt });
  } else {
    await ask(before, [...kept, { ...alternative, alternatives: tokens[at].alternatives, picked: true }], name);
  }
}

function edit(box, shown, before, text) {
  const field = element("textarea", { rows: 3, dir: "auto", "aria-label": "Edit the message" });
  field.value = text;
  const save = () => field.value.trim() && ask([...before, { role: "user", text: field.value }]);
  const form = element("form", { class: "edit", onsubmit: (event) => { event.preventDefault(); save(); } }, field,
    element("div", { class: "actions" },
      element("button", { type: "submit", class: "primary", text: "Send again" }),
      button("Cancel", () => show(versions.current)),
    ));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      show(versions.current);
      event.stopPropagation();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      save();
      event.preventDefault();
      event.stopPropagation();
    }
  });
  shown.replaceWith(form);
  field.focus();
}

function button(text, onclick) {
  return element("button", { type: "button", class: "plain", text, onclick });
}

function update() {
  byId("chat-stop").disabled = !writer.busy;
  byId("send").disabled = writer.busy;
  byId("chat-empty").hidden = Boolean(versions.current?.messages.length);
}
