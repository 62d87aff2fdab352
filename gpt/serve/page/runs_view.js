// The runs below the folder of runs: their losses while they are trained, their options, and samples.

import { chart, legend } from "./chart.js";
import { byId, count, element } from "./dom.js";
import { request } from "./server.js";
import { showError } from "./session.js";

const INTERVAL = 3000; // milliseconds between two looks at the runs; an unchanged answer has no body
const NAMES = { loss: "training batches", train_loss: "training set", val_loss: "validation set" };

const known = new Map(); // answers by their path: {tag, values}
const drawn = new Set(); // the names of the runs whose curves are shown
let timer = 0;
let shown = false;
let before = "";
let sampled = null; // the run of the sample that is shown: {name, seed, saved}

/** Connect the view. */
export function startRuns() {
  document.addEventListener("visibilitychange", () => runsShown(shown));
}

/** Look at the runs again and again while the view is shown. */
export function runsShown(now = true) {
  shown = now;
  clearTimeout(timer);
  if (shown && !document.hidden) look();
}

async function look() {
  clearTimeout(timer);
  try {
    const { runs, folder } = await get("/api/runs");
    if (!drawn.size && runs.length) drawn.add(runs[0].name);
    const details = [];
    for (const name of drawn) {
      if (runs.some((run) => run.name === name)) details.push(await get(addressOf(name)));
      else drawn.delete(name);
    }
    const now = JSON.stringify([runs, details]);
    if (now !== before) draw(runs, details, folder);
    before = now;
    showErrorOnce(null);
    const again = runs.find((run) => run.name === sampled?.name);
    if (again && again.saved !== sampled.saved) sample(again, sampled.seed); // The run has saved another model.
  } catch (error) {
    showErrorOnce(error.message);
  }
  if (shown && !document.hidden) timer = setTimeout(look, INTERVAL);
}

let lastError = null;
function showErrorOnce(message) {
  if (message !== lastError) showError("runs-error", message);
  lastError = message;
}

async function get(path) {
  const old = known.get(path);
  const answer = await request(path, { headers: old ? { "If-None-Match": old.tag } : {} });
  if (answer.status === 304) return old.values;
  const values = await answer.json();
  known.set(path, { tag: answer.headers.get("ETag"), values });
  return values;
}

function addressOf(name) {
  return `/api/runs/${name.split("/").map(encodeURIComponent).join("/")}`;
}

function draw(runs, details, folder) {
  const how = `${count(runs.length)} run${runs.length === 1 ? "" : "s"}`;
  byId("runs-status").textContent = runs.length
    ? `${how} below ${folder}/, read every ${INTERVAL / 1000} seconds.`
    : `There is no run below ${folder}/ yet. Start one: python -m gpt train`;
  byId("runs-body").hidden = !runs.length;
  if (!runs.length) return;
  const focused = document.activeElement?.id;
  drawTable(runs);
  if (focused?.startsWith("run-")) byId(focused)?.focus();
  drawChart(details);
  drawOptions(details);
}

function drawTable(runs) {
  const head = ["Curves", "Run", "State", "Step", "Training loss", "Validation loss", "Lowest", ""];
  const body = runs.map((run) => {
    const label = `Draw the curves of ${run.name}`;
    const box = element("input", { type: "checkbox", id: `run-${run.name}`, "aria-label": label });
    box.checked = drawn.has(run.name);
    box.addEventListener("change", () => {
      if (box.checked) drawn.add(run.name);
      else drawn.delete(run.name);
      look();
    });
    return element("tr", {},
      element("td", {}, box),
      element("th", { scope: "row", text: run.name }),
      element("td", {}, element("span", { class: `badge ${run.state}`, text: run.state })),
      ...[progress(run), number(run.train_loss), number(run.val_loss), number(run.best_loss)]
        .map((text) => element("td", { class: "number", text })),
      element("td", {}, element("button", {
        type: "button", id: `run-sample-${run.name}`, text: "Sample", disabled: run.saved === null,
        "aria-label": `Write a sample of ${run.name}`,
        title: run.saved === null ? "The run has no checkpoint yet" : null,
        onclick: () => sample(run, Math.floor(Math.random() * 2 ** 32)),
      })),
    );
  });
  byId("runs-table").replaceChildren(
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col", text })))),
    element("tbody", {}, ...body),
  );
}

function progress({ step, steps }) {
  return steps === null ? count(step) : `${count(step)} of ${count(steps)}`;
}

function number(value) {
  return value === undefined || value === null ? "–" : value.toFixed(4);
}

function drawChart(details) {
  const several = details.length > 1;
  const curves = details.flatMap(({ name, curves: found }, run) =>
    Object.entries(NAMES)
      .filter(([kind]) => found[kind]?.length && !(several && kind === "train_loss" && found.val_loss))
      .map(([kind, label], i) => ({
        label: several ? `${name}, ${label}` : label,
        points: found[kind],
        color: several ? run : i,
        dashed: kind === "loss",
      })),
  );
  const box = byId("runs-chart");
  box.hidden = !curves.length;
  if (!curves.length) return;
  const width = Math.max(300, Math.min(900, box.clientWidth - 28));
  box.replaceChildren(chart(curves, `Losses of ${details.map(({ name }) => name).join(", ")}`, width), legend(curves));
}

function drawOptions(details) {
  const box = byId("runs-options");
  const all = [...new Set(details.flatMap(({ options }) => Object.keys(options)))];
  const differ = all.filter((key) => new Set(details.map(({ options }) => JSON.stringify(options[key]))).size > 1);
  if (details.length < 2 || !differ.length) {
    box.replaceChildren();
    return;
  }
  const shownAs = (value) => (value === undefined ? "–" : String(value));
  const cells = (key) => details.map(({ options }) => element("td", { text: shownAs(options[key]) }));
  const row = (key) => element("tr", {}, element("th", { scope: "row", text: key }), ...cells(key));
  box.replaceChildren(
    element("h2", { text: "Options that differ" }),
    element("div", { class: "scroll" }, element("table", { class: "table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col", text: "Option" }),
        ...details.map(({ name }) => element("th", { scope: "col", text: name })))),
      element("tbody", {}, ...differ.map(row)),
    )),
  );
}

/** Show a text by the latest model of a run, and again by each later one, with the same seed. */
async function sample({ name, saved }, seed) {
  sampled = { name, seed, saved };
  const box = byId("runs-sample");
  box.hidden = false;
  const title = element("h2", { text: `A sample of ${name}` });
  const wait = "The latest checkpoint is loaded, and writes …";
  box.replaceChildren(title, element("p", { class: "quiet", role: "status", text: wait }));
  try {
    const answer = await request(`${addressOf(name)}/sample`, { body: { seed } });
    const { text, step } = await answer.json();
    if (sampled.name !== name) return;
    box.replaceChildren(title,
      element("p", { class: "quiet", role: "status", text: `Step ${count(step)}, seed ${seed}` }),
      element("pre", { class: "sample", dir: "auto", text }));
  } catch (error) {
    box.replaceChildren(title, element("p", { class: "error", role: "alert", text: error.message }));
  }
}
