// The two sums of a backward pass, drawn as what they are: the sum over dimensions that the op broadcast, and the sum
// over the uses of a value.

const PAUSE = 420;  // milliseconds between two rows that are added
const VIEWS = new Set(["reshape", "view", "unsqueeze", "squeeze", "flatten", "unflatten"]);
let playing = null;

// Return the sum over broadcast dimensions of one input of a step, or null if there is none. An op with a bias, like
// linear, sums inside its rule: then the rule's result is the sum of the gradient that comes in, which the numbers show.
function broadcastSum(step, input) {
  const edge = edges.get(input.edge), result = valueAt(input.result);
  if (!edge) return null;
  if (input.summed_dims && input.summed_dims.length) {
    const before = valueAt(input.result), after = valueAt(input.sum);
    if (!before || !after) return null;
    return { edge, before, after, dims: input.summed_dims, inside: false };
  }
  const gradient = valueAt(step.cotangent);
  if (!result || !gradient || result.shape.length >= gradient.shape.length || !isBias(edge)) return null;
  const last = gradient.shape.length - 1;
  const every = [...gradient.shape.keys()];
  const choices = [every.slice(0, gradient.shape.length - result.shape.length)];
  if (result.shape.length === 1 && last > 1) choices.push(every.filter((d) => d !== 1));
  for (const dimensions of choices) {
    const kept = every.filter((d) => !dimensions.includes(d)).map((d) => gradient.shape[d]);
    if (kept.join() !== result.shape.join() || gradient.shape.includes(0)) continue;
    if (isSum(gradient, result, dimensions)) {
      return { edge, before: gradient, after: result, dims: dimensions, inside: true };
    }
  }
  return null;
}

function isSum(before, after, dimensions) {
  const close = (a, b, size) => Math.abs(a - b) <= 1e-3 * size + 1e-12;
  if (before.numbers !== undefined && after.numbers !== undefined) {
    const rows = summedRows(before, dimensions);
    const sums = rows[0].map((_, j) => rows.reduce((sum, row) => sum + row[j].entry, 0));
    const size = Math.max(...rows.flat().map((each) => Math.abs(each.entry)));
    return flat(after.numbers).every((entry, j) => close(entry, sums[j], size * Math.sqrt(rows.length)));
  }
  const total = (value) => value.mean * value.shape.reduce((a, b) => a * b, 1);
  const spread = largest(before) * Math.sqrt(before.shape.reduce((a, b) => a * b, 1));
  return close(total(before), total(after), spread);
}

const flat = (entries) => Array.isArray(entries) ? entries.flat(Infinity) : [entries];

// Return the entries of a value as rows that add up: one row for each index of the summed dimensions.
function summedRows(value, dimensions) {
  const rows = new Map();
  const walk = (entries, index) => {
    if (Array.isArray(entries)) { entries.forEach((inner, i) => walk(inner, [...index, i])); return; }
    const key = dimensions.map((d) => index[d]).join(", ");
    if (!rows.has(key)) rows.set(key, []);
    rows.get(key).push({ entry: entries, index });
  };
  walk(value.numbers, []);
  return [...rows].map(([key, row]) => Object.assign(row, { key }));
}

// Return the word for what is summed: "row" and "column" of a matrix, "position" otherwise; and how many there are.
function summedWords(sum) {
  const count = sum.dims.reduce((product, d) => product * sum.before.shape[d], 1);
  const matrix = sum.before.shape.length === 2 && sum.dims.length === 1;
  const word = matrix ? ["row", "column"][sum.dims[0]] : sum.dims.length === sum.before.shape.length ? "entry" : "position";
  return { count, word, many: word === "entry" ? "entries" : `${word}s` };
}

function inputName(edge) {
  const node = nodes.get(edge.from);
  if (node.name) return node.name;
  const first = viewedFrom(node);
  if (first.name) return first.name;
  if (node.kind === "constant" && edge.argument) return `the constant ${edge.argument}`;
  return edge.argument && node.kind !== "op" ? edge.argument : nameOf(node);
}

// Return the names of inputs in a sentence. Inputs of the same name get those of their arguments.
function inputNames(list) {
  const names = list.map(inputName);
  const alike = list.filter((edge, i) => nodes.get(edge.from).numbered && names[i] === nodes.get(edge.from).label);
  return list.map((edge, i) => (names.indexOf(names[i]) !== names.lastIndexOf(names[i]) || alike.length > 1 && alike.includes(edge)) && edge.argument || names[i]);
}

// Return the node whose entries a view has: that of a parameter for its reshape.
function viewedFrom(node) {
  let first = node;
  while (first.kind === "op" && VIEWS.has(first.op) && first.inputs.length === 1) first = nodes.get(first.inputs[0].from);
  return first;
}

const isBias = (edge) => edge.argument === "bias" || /(^|[._])bias\d*$/.test(viewedFrom(nodes.get(edge.from)).name || "");

// Return sentences that say why there is a sum.
function whySum(sum) {
  const { count, word, many } = summedWords(sum);
  const source = nodes.get(sum.edge.from);
  const name = inputName(sum.edge);
  const called = isBias(sum.edge) ? "The bias" : `The value ${name}`;
  const some = many === "entries" ? `${count} entries` : plural(count, word);
  const places = `${some} of dimension${sum.dims.length > 1 ? "s" : ""} ${listed(sum.dims.map(String))}`;
  const full = dims(sum.before.shape), own = isBias(sum.edge) ? "the bias" : name;
  return [
    word === "position" ? `${called} was used at each of the ${places}, so its gradient is the sum over them.`
      : `${called} was used for each of the ${some}, so its gradient is the sum of ${some}.`,
    `Forwards, ${source.shape.length ? `the ${source.shape.join(" × ")} entries of ${own} were` : `${own} was`} used ` +
    `${word === "entry" ? `in all ${count} entries` : word === "position" ? `at all ${count} positions` : `in all ${count} ${many}`} of the ${full} result. ` +
    `Backwards, each ${word} says how the result changes if ${isBias(sum.edge) ? "the bias" : name} changes for that ` +
    `${word} alone. There is one ${isBias(sum.edge) ? "bias" : name} for all of them, so the effects add up.`,
    sum.inside ? ""
      : `The engine adds them after the rule, over dimension${sum.dims.length > 1 ? "s" : ""} ${listed(sum.dims.map(String))}.`,
  ];
}

function drawSum(sum) {
  const [first, ...rest] = whySum(sum);
  const small = sum.before.numbers !== undefined && sum.after.numbers !== undefined && !sum.before.shape.includes(0);
  return element("section", { class: "sum", "aria-label": "Sum over broadcast dimensions" },
    element("h4", {}, "Why there is a sum"), element("p", { class: "key-sentence" }, first),
    sum.inside ? element("p", { class: "muted" }, "Above the line is the gradient that came in, below it the gradient of the bias.") : null,
    small ? drawSumOfNumbers(sum) : drawSumOfHeat(sum),
    rest.filter(Boolean).map((text) => element("p", {}, text)));
}

function drawSumOfNumbers(sum) {
  const rows = summedRows(sum.before, sum.dims), totals = flat(sum.after.numbers);
  const { word, many } = summedWords(sum);
  const scale = Math.max(largest(sum.before), largest(sum.after));
  const sideways = word === "column";
  const body = element("tbody");
  const terms = rows.map((row) => row.map(({ entry, index }) => cell("td", entry, `[${index.join(", ")}]`, scale)));
  const results = totals.map((entry, j) => cell("td", entry, `sum ${j}`, scale, "total"));
  if (sideways) {
    body.append(element("tr", {}, element("th"), rows.map((row) => element("th", { scope: "col" }, row.key)), element("th"),
      element("th", { scope: "col", class: "total" }, "sum")));
    totals.forEach((_, j) => body.append(element("tr", {}, element("th", { scope: "row" }, j),
      terms.map((row) => row[j]), element("td", { class: "sign" }, "="), results[j])));
  } else {
    rows.forEach((row, i) => body.append(element("tr", { class: "term" },
      element("th", { scope: "row" }, `${word} ${row.key}`), terms[i],
      element("td", { class: "sign" }, i < rows.length - 1 ? "+" : ""))));
    body.append(element("tr", { class: "total" }, element("th", { scope: "row" }, "sum"), results, element("td")));
  }
  const grid = element("table", { class: `grid collapse ${sideways ? "sideways" : ""}` }, body);
  const said = element("span", { class: "muted", "aria-live": "off" });
  const play = () => playSum({ rows, terms, results, totals, scale, sideways, said, word });
  const button = element("button", { type: "button", class: "play", onclick: play }, `Add the ${many} one by one`);
  return element("div", { class: "collapsing" }, scroller(grid), element("p", { class: "controls" }, button, " ", said));
}

// Let each row (or column) slide into the sum, which grows from 0.
function playSum(parts) {
  const { rows, terms, results, totals, scale, sideways, said, word } = parts;
  stopPlaying();
  const quick = reducedMotion();
  const partial = totals.map(() => 0);
  const put = (values) => results.forEach((node, j) => {
    node.textContent = number(values[j], 3);
    paintCell(node, values[j], scale);
  });
  const reset = () => {
    terms.flat().forEach((node) => { node.classList.remove("moves", "added"); node.style.transform = ""; });
    put(totals);
    said.textContent = "";
  };
  put(partial);
  let at = 0;
  const tick = () => {
    if (at === terms.length) {
      said.textContent = `All ${terms.length} are added.`;
      put(totals);
      playing = { timer: setTimeout(() => { reset(); playing = null; }, 1600), reset };
      return;
    }
    terms[at].forEach((node, j) => {
      const from = node.getBoundingClientRect(), to = results[j].getBoundingClientRect();
      node.classList.add(quick ? "added" : "moves");
      if (!quick) node.style.transform = sideways ? `translateX(${to.left - from.left}px)` : `translateY(${to.top - from.top}px)`;
      partial[j] += Number(rows[at][j].entry);
    });
    put(partial);
    at += 1;
    said.textContent = `${plural(at, word)} added.`;
    playing = { timer: setTimeout(tick, PAUSE), reset };
  };
  playing = { timer: setTimeout(tick, 60), reset };
}

function stopPlaying() {
  if (!playing) return;
  clearTimeout(playing.timer);
  playing.reset();
  playing = null;
}

// Large values: a heat map, a bracket that says how many rows become one, and the sum at the same width. Columns
// collapse to the right in the same way.
function drawSumOfHeat(sum) {
  const { count, word, many } = summedWords(sum);
  const sideways = word === "column", height = Math.min(150, Math.max(40, (sum.before.heat?.rows || 8) * 6));
  const size = sideways ? { width: WIDE - 60, height } : { width: WIDE, height };
  const terms = sum.before.heat ? drawHeat(sum.before, { ...size, plain: sideways }) : drawEntries(sum.before);
  const rest = { ...(sideways ? { width: 22, height } : { width: WIDE, height: 22 }), plain: true };
  const total = sum.after.heat ? drawHeat(sum.after, rest) : drawStrip(sum.after, rest, sideways);
  const words = `add the ${count} ${many}, keep ${dims(sum.after.shape)}`;
  const picture = element("div", { class: `collapsing ${sideways ? "sideways" : ""}` }, terms,
    element("p", { class: "bracket" }, sideways ? "" : words), total);
  const canvas = picture.querySelector("canvas"), flat = sideways ? "scaleX(0.02)" : "scaleY(0.02)";
  const collapse = () => canvas.animate([{ transform: "none" }, { transform: flat }, { transform: "none" }],
    { duration: 2200, easing: "ease-in-out" });
  return [picture, sideways ? element("p", { class: "bracket-words" }, words) : null,
    sum.after.heat ? null : statistics(sum.after),
    canvas && !reducedMotion() ? element("button", { type: "button", class: "play", onclick: collapse }, `Collapse the ${many}`) : null];
}

// Return a few numbers as a strip of coloured cells of a given size in pixels.
function drawStrip(value, size, upright) {
  const entries = flat(value.numbers), scale = largest(value);
  if (entries.length < 2) return drawEntries(value);
  const strip = element("div", { class: `strip ${upright ? "upright" : ""}` }, entries.map((entry, j) => {
    const node = element("i");
    paintCell(node, entry, scale);
    return tip(node, `[${j}] = ${number(entry, 9)}`);
  }));
  strip.style.width = `${size.width}px`;
  strip.style.height = `${size.height}px`;
  return strip;
}

// The sum over uses: what had arrived, what this use adds, the total.
function drawUses(input, result) {
  const source = nodes.get(edges.get(input.edge).from);
  const name = inputName(edges.get(input.edge));
  const before = valueAt(input.before), adds = valueAt(result), after = valueAt(input.after);
  const single = (value) => value && !value.shape.length ? number(value.numbers) : null;
  const counted = `${name} is used ${input.uses} times; this is use ${input.use}`;
  let sentence = `${counted}.`;
  if (!before) sentence = `${counted}: nothing had arrived before.`;
  else if (single(before) !== null && single(adds) !== null) {
    sentence = `${counted}: arrived ${single(before)}, adds ${single(adds)}, total ${single(after)}.`;
  }
  const rest = input.uses - input.use;
  const later = rest > 0 ? `${plural(rest, "use")} will still add to it.`
    : source.kind === "op" ? "That was the last use, so its own step can come." : "That was the last use, so this is its gradient.";
  const term = (sign, index, title) => [sign && element("span", { class: "sign" }, sign), drawValue(index, { title, compact: true })];
  return element("section", { class: "sum uses", "aria-label": "Sum over several uses" },
    element("h4", {}, "One value, several uses"), element("p", { class: "key-sentence" }, sentence),
    before && element("div", { class: "equation" }, term("", input.before, "arrived"), term("+", result, "this use adds"),
      term("=", input.after, "total")),
    element("p", {}, `${name} changes the result along each use, so the gradients of its uses are added. ${later}`));
}
