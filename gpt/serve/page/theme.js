// Dark and light: that of the system, or the one that the user has chosen.

import { byId } from "./dom.js";

const KEY = "tensorlite-theme";
const ORDER = ["system", "light", "dark"];
const listeners = [];

/** Call a function when the colours change, because canvases have to be drawn again. */
export function onTheme(listener) {
  listeners.push(listener);
}

/** Connect the switch, and apply the theme that was chosen before. */
export function startTheme() {
  apply(localStorage.getItem(KEY) ?? "system");
  byId("theme").addEventListener("click", () => {
    apply(ORDER[(ORDER.indexOf(document.documentElement.dataset.theme) + 1) % ORDER.length]);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

function apply(theme) {
  const known = ORDER.includes(theme) ? theme : "system";
  document.documentElement.dataset.theme = known;
  byId("theme").textContent = `Theme: ${known}`;
  localStorage.setItem(KEY, known);
  changed();
}

function changed() {
  for (const listener of listeners) listener();
}
