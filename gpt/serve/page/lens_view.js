// The logit lens: a table of layers and tokens, each cell with the token that the layer would write next.

import { byId, element } from "./dom.js";
import { pictureOfText } from "./picture_of_text.js";
import { popover } from "./popover.js";
import { nameOf, percent, stepOf } from "./tokens.js";

/** Connect the view to its buttons. Return a function that loads the table when the view is shown. */
export function startLens() {
  return pictureOfText("lens", draw);
}

function draw({ tokens, cells, names, first }) {
  const head = element("tr", {}, element("th", { scope: "col", class: "corner", text: "layer" }));
  head.append(...tokens.map((token, column) =>
    element("th", { scope: "col", text: nameOf(token), title: `token ${first + column + 1}` })));
  const body = element("tbody");
  const last = cells.length - 1;
  for (let layer = last; layer >= 0; layer -= 1) {
    const name = layer === 0 ? "embedding" : layer === last ? `${layer - 1} (output)` : String(layer - 1);
    const row = element("tr", {}, element("th", { scope: "row", text: name }));
    cells[layer].forEach((likeliest, column) => row.append(makeCell(likeliest, names, layer, column, name, first)));
    body.append(row);
  }
  const table = element("table", { class: "lens" }, element("thead", {}, head), body);
  table.addEventListener("keydown", onKey);
  const start = body.rows[0].cells[tokens.length];
  start.tabIndex = 0;
  byId("lens-table").replaceChildren(table);
  byId("lens-table").scrollLeft = byId("lens-table").scrollWidth;
}

function makeCell(likeliest, names, layer, column, name, first) {
  const [id, logprob] = likeliest[0];
  const token = names[id];
  const cell = element("td", { class: `p${stepOf(logprob)}`, tabindex: -1 },
    element("span", { class: "token-name", text: nameOf(token) }), element("small", { text: percent(logprob) }));
  const content = () => ({
    token: null,
    place: `${layer ? `layer ${name}` : name}, after token ${first + column + 1}`,
    alternatives: likeliest.map(([other, log]) => ({ ...names[other], logprob: log })),
    note: null,
    pick: null,
  });
  cell.addEventListener("pointermove", (event) => event.pointerType !== "touch" && popover.showSoon(cell, content));
  cell.addEventListener("pointerleave", () => popover.hideSoon());
  cell.addEventListener("focus", () => popover.show(cell, content()));
  cell.addEventListener("blur", () => popover.hide());
  return cell;
}

function onKey(event) {
  const cell = event.target.closest("td");
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  const rows = [...cell.closest("tbody").rows];
  const row = Math.max(0, Math.min(rows.length - 1, rows.indexOf(cell.parentElement) + step[0]));
  const next = rows[row].cells[Math.max(1, Math.min(rows[row].cells.length - 1, cell.cellIndex + step[1]))];
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
