// The attention of every layer and head: small heat maps, one of them enlarged, and lines between tokens.

import { byId, element, fromBase64, styleColor, svg } from "./dom.js";
import { pictureOfText } from "./picture_of_text.js";
import { nameOf } from "./tokens.js";
import { onTheme } from "./theme.js";

const ROW = 22; // pixels of a token in the lines
const WIDTHS = { narrow: 90, wide: 160 }; // pixels between the two columns of the lines
const LEAST = 0.02; // weights below it have no line
const FAR = 256; // steps of a colour scale

let data = null; // the answer of the server, with `maps`: a Uint8Array (layers, heads, T, T)
let chosen = { layer: 0, head: 0 };
let cell = { row: 0, column: 0 };

/** Connect the view to its buttons. Return a function that loads the attention when the view is shown. */
export function startAttention() {
  onTheme(() => data && draw());
  return pictureOfText("attention", (answer) => {
    data = answer;
    data.maps = fromBase64(data.weights);
    data.T = data.tokens.length;
    data.names = data.tokens.map((token) => nameOf(token));
    chosen = { layer: Math.min(chosen.layer, data.layers - 1), head: Math.min(chosen.head, data.heads - 1) };
    cell = { row: data.T - 1, column: 0 };
    byId("attention-body").hidden = false;
    draw();
  });
}

/** Return the weight (0 to 1) from a token that reads to one that is read. */
function weight({ layer, head }, row, column) {
  const { heads, T, maps } = data;
  return (maps[((layer * heads + head) * T + row) * T + column] / 255) ** 2;
}

/** Return the colours of weights: FAR colours from that of the paper to that of the ink. */
function scale() {
  const [low, high] = [styleColor("--heat-low"), styleColor("--heat-high")];
  return Array.from({ length: FAR }, (_, step) => low.map((from, i) => from + ((high[i] - from) * step) / (FAR - 1)));
}

function draw() {
  drawGrid();
  choose(chosen);
}

function drawGrid() {
  const { layers, heads } = data;
  const grid = byId("attention-grid");
  grid.style.gridTemplateColumns = `auto repeat(${heads}, minmax(2rem, 4rem))`;
  const parts = [element("span")];
  for (let head = 0; head < heads; head += 1) parts.push(element("span", { class: "axis", text: `head ${head}` }));
  const colors = scale();
  for (let layer = 0; layer < layers; layer += 1) {
    parts.push(element("span", { class: "axis", text: `layer ${layer}` }));
    for (let head = 0; head < heads; head += 1) {
      const button = element("button", {
        type: "button", class: "map", "data-layer": layer, "data-head": head, tabindex: -1,
        "aria-label": `Layer ${layer}, head ${head}`,
        onclick: () => choose({ layer, head }),
      });
      button.append(heatMap({ layer, head }, colors));
      parts.push(button);
    }
  }
  grid.replaceChildren(...parts);
  grid.onkeydown = onGridKey;
}

function heatMap(which, colors) {
  const { T } = data;
  const canvas = element("canvas", { width: T, height: T, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(T, T);
  for (let row = 0; row < T; row += 1) {
    for (let column = 0; column < T; column += 1) {
      const color = colors[Math.round(Math.sqrt(weight(which, row, column)) * (FAR - 1))];
      image.data.set([...color, 255], 4 * (row * T + column));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function onGridKey(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const layer = Math.max(0, Math.min(data.layers - 1, chosen.layer + step[0]));
  const head = Math.max(0, Math.min(data.heads - 1, chosen.head + step[1]));
  choose({ layer, head });
  mapButton().focus();
}

function mapButton() {
  return byId("attention-grid").querySelector(`[data-layer="${chosen.layer}"][data-head="${chosen.head}"]`);
}

function choose(which) {
  const before = mapButton();
  before?.removeAttribute("aria-current");
  before?.setAttribute("tabindex", "-1");
  chosen = which;
  mapButton().setAttribute("aria-current", "true");
  mapButton().setAttribute("tabindex", "0");
  byId("attention-title").textContent = `Layer ${which.layer}, head ${which.head}`;
  drawLarge();
  drawLines();
}

function drawLarge() {
  const { T, names } = data;
  const size = Math.max(6, Math.min(22, Math.floor(440 / T)));
  const font = Math.min(12, size - 2); // Names that are too small to read are left out of the axes.
  const side = size * T;
  const canvas = heatMap(chosen, scale());
  canvas.setAttribute("class", "large-map");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Heat map. The arrow keys move from cell to cell.");
  canvas.removeAttribute("aria-hidden");
  canvas.style.width = canvas.style.height = `${side}px`;
  const marker = element("span", { class: "marker" });
  marker.style.width = marker.style.height = `${size}px`;
  const at = (event) => {
    const rect = canvas.getBoundingClientRect();
    const place = (distance) => Math.max(0, Math.min(T - 1, Math.floor(distance / size)));
    move(place(event.clientY - rect.top), place(event.clientX - rect.left));
  };
  const move = (row, column) => {
    cell = { row, column };
    marker.style.transform = `translate(${column * size}px, ${row * size}px)`;
    readOut();
  };
  canvas.addEventListener("pointermove", at);
  canvas.addEventListener("pointerdown", at);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(Math.max(0, Math.min(T - 1, cell.row + step[0])), Math.max(0, Math.min(T - 1, cell.column + step[1])));
  });
  const label = (side) => (name) => {
    const made = element("span", { class: "axis-name", text: name, title: name });
    made.style[side] = `${size}px`;
    made.style.fontSize = `${font}px`;
    made.style.lineHeight = `${size}px`;
    return made;
  };
  const rows = element("div", { class: "axis-rows", "aria-hidden": "true" });
  const columns = element("div", { class: "axis-columns", "aria-hidden": "true" });
  if (font >= 6) {
    rows.append(...names.map(label("height")));
    columns.append(...names.map(label("width")));
  }
  byId("attention-large").replaceChildren(rows, element("div", { class: "map-frame" }, canvas, marker), columns);
  move(Math.min(cell.row, T - 1), Math.min(cell.column, T - 1));
}

function readOut() {
  const { row, column } = cell;
  const { names } = data;
  const reader = `“${names[row]}” (token ${place(row)})`;
  const value = share(weight(chosen, row, column));
  const text = column > row
    ? `${reader} cannot read “${names[column]}”, which comes later.`
    : `${reader} reads “${names[column]}” (token ${place(column)}): ${value}.`;
  byId("attention-readout").textContent = `${text}${aboutEarlier(row)}`;
}

/** Return a sentence about the attention of a token to tokens before those of the map, if there is some. */
function aboutEarlier(row) {
  let sum = 0;
  for (let column = 0; column <= row; column += 1) sum += weight(chosen, row, column);
  const before = data.read === data.T ? 0 : 1 - sum;
  return before < 0.005 ? "" : ` It reads earlier tokens, which are left out: ${share(before)}.`;
}

function place(row) {
  return data.first + row + 1;
}

function share(value) {
  return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
}

function drawLines() {
  const { T, names } = data;
  const height = T * ROW;
  const width = matchMedia("(max-width: 50rem)").matches ? WIDTHS.narrow : WIDTHS.wide;
  const column = (kind, start) => {
    const list = element("div", {
      class: `lines-${kind}`, role: kind === "left" ? "listbox" : null,
      "aria-label": kind === "left" ? "Tokens that read" : null,
    });
    list.append(...names.map((name, row) => {
      const made = element("span", {
        class: "line-token", text: name, "data-row": row, title: name,
        role: kind === "left" ? "option" : null, tabindex: kind === "left" ? (row === start ? 0 : -1) : null,
      });
      made.style.height = `${ROW}px`;
      return made;
    }));
    return list;
  };
  const left = column("left", T - 1);
  const right = column("right", -1);
  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const shares = [...right.children];
  let most = LEAST;
  for (let row = 1; row < T; row += 1) {
    for (let to = 0; to < row; to += 1) most = Math.max(most, weight(chosen, row, to));
  }
  const show = (only) => {
    const lines = [];
    byId("lines-readout").textContent = only === null
      ? "Point at a token on the left: it reads the tokens on the right."
      : `“${names[only]}” is token ${place(only)}.${aboutEarlier(only)}`;
    shares.forEach((made) => made.removeAttribute("data-share"));
    for (let row = 0; row < T; row += 1) {
      if (only !== null && row !== only) continue;
      for (let to = 0; to <= row; to += 1) {
        const value = weight(chosen, row, to);
        if (only === row && value >= 0.005) shares[to].dataset.share = share(value);
        if (value < LEAST) continue;
        const [y, end] = [(row + 0.5) * ROW, (to + 0.5) * ROW];
        lines.push(svg("path", {
          d: `M0 ${y} C${width / 2} ${y} ${width / 2} ${end} ${width} ${end}`, class: "attention-line",
          "stroke-width": (0.5 + 5.5 * value).toFixed(2),
          opacity: Math.min(1, (only === null ? 0.1 : 0.25) + (0.75 * value) / most).toFixed(2),
        }));
      }
    }
    picture.replaceChildren(...lines);
    for (const made of left.children) made.classList.toggle("active", Number(made.dataset.row) === only);
  };
  const rowOf = (event) => event.target.dataset?.row;
  left.addEventListener("pointerover", (event) => rowOf(event) !== undefined && show(Number(rowOf(event))));
  left.addEventListener("pointerleave", () => !left.contains(document.activeElement) && show(null));
  left.addEventListener("focusin", (event) => rowOf(event) !== undefined && show(Number(rowOf(event))));
  left.addEventListener("focusout", () => show(null));
  left.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = left.children[Math.max(0, Math.min(T - 1, Number(rowOf(event)) + step))];
    for (const made of left.children) made.tabIndex = made === next ? 0 : -1;
    next.focus();
  });
  byId("attention-lines").replaceChildren(left, picture, right);
  show(null);
}
