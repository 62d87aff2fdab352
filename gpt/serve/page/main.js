// Start the page: the options of the server, the tabs, the theme, and the keys.

import { startAttention } from "./attention_view.js";
import { send, startChat } from "./chat_view.js";
import { makeControls } from "./controls.js";
import { byId, count, element } from "./dom.js";
import { startLens } from "./lens_view.js";
import { popover } from "./popover.js";
import { runsShown, startRuns } from "./runs_view.js";
import { json, onReachable, setTokenDialog } from "./server.js";
import { model, session, setCurrent } from "./session.js";
import { startText, write } from "./text_view.js";
import { STEPS } from "./tokens.js";
import { writer } from "./writer.js";
import { startTheme } from "./theme.js";

const VIEWS = ["text", "chat", "attention", "lens", "runs"];
const shown = { runs: runsShown }; // what a view does when it is shown
const SENDS = { text: write, chat: send };
let view = "text";

async function start() {
  startTheme();
  makeScale();
  setTokenDialog(askForToken);
  onReachable((reachable) =>
    showBanner(reachable ? null : "The server does not answer. The page tries again until it does."));
  makeTabs();
  document.addEventListener("keydown", onKey);
  if (matchMedia("(max-width: 50rem)").matches) byId("settings").open = false;
  await loadOptions();
}

async function loadOptions() {
  try {
    session.options = await json("/api/options");
  } catch (error) {
    showBanner(error.message);
    setTimeout(loadOptions, 3000);
    return;
  }
  showBanner(null);
  const { models, sampling, length } = session.options;
  byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id, text: id })));
  byId("model").addEventListener("change", modelChanged);
  makeControls(sampling, length);
  startText();
  startChat();
  shown.attention = startAttention();
  shown.lens = startLens();
  startRuns();
  modelChanged();
  select(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : model().chat ? "chat" : "text");
}

function modelChanged() {
  const { chat, context, layers, heads } = model();
  byId("model-facts").textContent = `${layers} layers, ${heads} heads, context ${count(context)}`;
  byId("tab-chat").hidden = !chat;
  if (!chat && view === "chat") select("text");
}

function makeTabs() {
  for (const name of VIEWS) {
    byId(`tab-${name}`).addEventListener("click", () => select(name));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      const tabs = VIEWS.filter((other) => !byId(`tab-${other}`).hidden);
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(name) + step + tabs.length) % tabs.length];
      select(next);
      byId(`tab-${next}`).focus();
    });
  }
}

function select(name) {
  if (name === "chat" && byId("tab-chat").hidden) name = "text";
  view = name;
  popover.hide();
  for (const other of VIEWS) {
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    byId(`view-${other}`).hidden = other !== name;
  }
  document.body.dataset.view = name;
  history.replaceState(null, "", `#${name}`);
  if (name in SENDS) setCurrent(name);
  shown[name]?.();
  runsShown(name === "runs");
}

function onKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && view in SENDS && !writer.busy) {
    event.preventDefault();
    SENDS[view]();
  } else if (event.key === "Escape") {
    if (popover.open) popover.hide();
    else writer.stop();
  }
}

function makeScale() {
  const names = STEPS.map((least, step) => {
    const most = step ? STEPS[step - 1] : null;
    if (most === null) return `${100 * least} % and more`;
    return least ? `${100 * least} to ${100 * most} %` : `below ${100 * most} %`;
  });
  byId("scale-steps").replaceChildren(...names.map((text, step) => element("li", { class: `p${step}`, text })));
  byId("show-percent").addEventListener("change", (event) => {
    document.body.classList.toggle("with-percent", event.target.checked);
  });
}

function showBanner(text) {
  byId("banner").hidden = text === null;
  byId("banner").textContent = text ?? "";
}

function askForToken(wrong) {
  const dialog = byId("token-dialog");
  byId("token-why").textContent = wrong
    ? "The server did not accept that token. It is what the server was started with."
    : "It is what the server was started with: --token, or TENSORLITE_SERVE_TOKEN.";
  byId("token-field").value = "";
  dialog.returnValue = ""; // That of an earlier answer would stay if the user leaves the dialog with Escape.
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    byId("token-cancel").onclick = () => dialog.close("");
    const answer = () => resolve(dialog.returnValue === "ok" ? byId("token-field").value : null);
    dialog.addEventListener("close", answer, { once: true });
  });
}

start();
