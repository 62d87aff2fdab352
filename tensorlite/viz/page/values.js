// Values of tensors: numbers in a grid, or a heat map on a canvas, with statistics.

const WIDE = 300;  // pixels of a heat map
const NOT_A_NUMBER = { light: [214, 40, 160], dark: [255, 92, 205] };
const SCALES = {
  light: { low: [38, 98, 173], middle: [247, 247, 244], high: [190, 82, 32] },
  dark: { low: [88, 158, 240], middle: [38, 42, 51], high: [240, 146, 84] },
};
const canvases = new Set();

const themeName = () => document.documentElement.dataset.theme === "dark" ? "dark" : "light";

const valueAt = (index) => index === null || index === undefined ? null : data.values[index] || null;

// Return the colour of a share from -1 (low) over 0 to 1 (high).
function colour(share) {
  const { low, middle, high } = SCALES[themeName()];
  const end = share < 0 ? low : high, part = Math.min(1, Math.abs(share)) ** 0.8;
  return middle.map((from, i) => Math.round(from + (end[i] - from) * part));
}

// Return the largest size of a value's entries, which is the end of its colour scale.
function largest(value) {
  const { low, high } = value.heat || { low: value.min, high: value.max };
  const sizes = [low, high].map((each) => typeof each === "number" ? Math.abs(each) : 0);
  return Math.max(...sizes) || 1;
}

// Show a value: its shape, its statistics, its entries. options: title, compact (no statistics), scale.
function drawValue(index, options = {}) {
  const value = valueAt(index);
  const title = options.title && element("span", { class: "name" }, options.title);
  if (!value) {
    return element("figure", { class: "value" }, element("figcaption", {}, title, " ",
      element("span", { class: "muted" }, options.missing || "This value is not known.")));
  }
  const caption = element("figcaption", {}, title, " ",
    element("span", { class: "muted" }, `${dims(value.shape)}, ${value.dtype}`));
  return element("figure", { class: "value" }, caption, drawEntries(value, options),
    options.compact ? null : statistics(value));
}

function drawEntries(value, options = {}) {
  if (value.shape.includes(0)) return element("p", { class: "muted" }, "This tensor is empty: it has no entries.");
  if (value.heat) return drawHeat(value, options);
  if (!value.shape.length) return cell("div", value.numbers, "value", largest(value), "single");
  return drawNumbers(value, options);
}

function statistics(value) {
  const size = value.shape.reduce((a, b) => a * b, 1);
  if (size < 2) return null;
  const known = ["min", "mean", "max"].filter((name) => value[name] !== null && value[name] !== undefined);
  const items = known.map((name) => [name, number(value[name])]);
  if (value.zeros) items.push(["zeros", percent(value.zeros)]);
  const list = items.map(([name, text]) => element("span", {}, `${name} `, element("b", {}, text)));
  if (value.nans) list.push(element("span", { class: "alarm" }, `NaN ${percent(value.nans)}`));
  if (value.infs) list.push(element("span", { class: "alarm" }, `infinite ${percent(value.infs)}`));
  return element("p", { class: "statistics" }, list);
}

// Return one entry: a number on the colour of its size. Hover shows all its digits and its index.
function cell(tag, entry, where, scale, extra = "") {
  const odd = typeof entry === "string" && /^[-+]?(nan|inf)/i.test(entry);
  const node = element(tag, { class: `entry ${extra} ${odd ? "odd" : ""}` }, number(entry, 3));
  paintCell(node, entry, scale);
  return tip(node, () => `${where} = ${number(entry, 9)}`);
}

function paintCell(node, entry, scale) {
  const share = typeof entry === "number" ? entry / scale : typeof entry === "boolean" ? Number(entry) * 0.5 : 0;
  node.style.setProperty("--share", `${Math.round(Math.min(1, Math.abs(share)) * 55)}%`);
  node.classList.toggle("negative", share < 0);
}

// Return entries as tables: one row for 1-d, one table for each slice of more than two dimensions.
function drawNumbers(value, options = {}) {
  const scale = options.scale || largest(value);
  if (value.shape.length === 1) return scroller(table([value.numbers], (i, j) => `[${j}]`, scale, false));
  const slices = [];
  const walk = (entries, depth, path) => {
    if (depth === value.shape.length - 2) slices.push([path, entries]);
    else entries.forEach((inner, i) => walk(inner, depth + 1, [...path, i]));
  };
  walk(value.numbers, 0, []);
  return element("div", { class: "slices" }, slices.map(([path, entries]) => element("div", {},
    path.length ? element("p", { class: "slice" }, `[${path.join(", ")}, :, :]`) : null,
    scroller(table(entries, (i, j) => `[${[...path, i, j].join(", ")}]`, scale, true)))));
}

const scroller = (content) => element("div", { class: "scroller" }, content);

function table(rows, label, scale, numbered) {
  const columns = rows.length ? rows[0].length : 0;
  const heads = [...Array(columns).keys()].map((j) => element("th", { scope: "col" }, j));
  return element("table", { class: "grid" },
    columns > 1 && element("thead", {}, element("tr", {}, numbered && element("td"), heads)),
    element("tbody", {}, rows.map((row, i) => element("tr", {},
      numbered && element("th", { scope: "row" }, i),
      row.map((entry, j) => cell("td", entry, label(i, j), scale))))));
}

function heatCells(heat) {
  heat.codes ??= Uint8Array.from(atob(heat.cells), (character) => character.charCodeAt(0));
  return heat.codes;
}

const heatNumber = (heat, code) => heat.low + code / 254 * (heat.high - heat.low);

// Show a value as a heat map. options: scale, width and height in pixels.
function drawHeat(value, options = {}) {
  const { heat } = value;
  const size = Math.max(1, Math.min(14, Math.floor(WIDE / heat.cols)));
  const width = options.width || Math.max(48, heat.cols * size);
  const height = options.height || Math.max(16, Math.min(220, heat.rows * size));
  const words = `Heat map of ${dims(value.shape)} entries from ${number(value.min)} to ${number(value.max)}`;
  const canvas = element("canvas", { width: heat.cols, height: heat.rows, role: "img", "aria-label": words });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.paint = () => paintHeat(canvas, heat, options.scale || largest(value));
  canvas.paint();
  canvases.add(canvas);
  tip(canvas, (event) => event.clientX === undefined ? words : heatTip(value, canvas, event));
  const end = number(options.scale || largest(value), 3);
  return element("div", { class: "heat" }, canvas, options.plain ? null : element("div", { class: "key" },
    element("span", {}, `−${end}`), element("i", { class: "ramp" }), element("span", {}, end),
    value.nans || value.infs ? [element("i", { class: "ramp odd" }), element("span", {}, "NaN or infinite")] : null,
    heat.reduced && element("span", { class: "reduced" }, `A cell is the ${heat.reduced.replace(" x ", " × ")}.`)));
}

function paintHeat(canvas, heat, scale) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(heat.cols, heat.rows);
  const odd = NOT_A_NUMBER[themeName()];
  const colours = [...Array(256).keys()].map((code) => code === 255 ? odd : colour(heatNumber(heat, code) / scale));
  heatCells(heat).forEach((code, i) => { image.data.set([...colours[code], 255], 4 * i); });
  context.putImageData(image, 0, 0);
}

function heatTip(value, canvas, event) {
  const { heat } = value, box = canvas.getBoundingClientRect();
  const row = Math.max(0, Math.min(heat.rows - 1, Math.floor((event.clientY - box.top) / box.height * heat.rows)));
  const column = Math.max(0, Math.min(heat.cols - 1, Math.floor((event.clientX - box.left) / box.width * heat.cols)));
  const code = heatCells(heat)[row * heat.cols + column];
  const [tall, wide] = (/(\d+) x (\d+)/.exec(heat.reduced || "") || [0, 1, 1]).slice(1).map(Number);
  const text = code === 255 ? "NaN or infinite" : `about ${number(heatNumber(heat, code), 3)}`;
  const index = heatIndex(value.shape, row * tall, column * wide);
  return tall * wide > 1 ? `${tall} × ${wide} entries from [${index.join(", ")}]: mean ${text}` : `[${index.join(", ")}] is ${text}`;
}

// Return the index of the entry in a row and a column, where the last dimension is the column.
function heatIndex(size, row, column) {
  if (size.length < 2) return [column];
  const index = [column];
  for (let d = size.length - 2; d >= 0; d -= 1) { index.unshift(row % size[d]); row = Math.floor(row / size[d]); }
  return index;
}

// Paint the heat maps again, in the colours of the other theme.
function repaintValues() {
  for (const canvas of canvases) {
    if (canvas.isConnected) canvas.paint();
    else canvases.delete(canvas);
  }
}
