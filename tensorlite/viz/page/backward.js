// The explanation of a backward step: what comes in, the rule, what goes out to each input, what is freed.

function section(title, ...children) {
  return element("section", {}, element("h3", {}, title), children);
}

function sourceOf(index) {
  return index === null || index === undefined ? null : data.sources[index] || null;
}

const SHORT = 14;  // lines of a function that is shown without a click

// Return the source of a function without the indentation that its file has around it. The body of a def keeps its own.
function unindented(source) {
  const lines = source.replace(/ *# fmt: skip/g, "").replace(/\s+$/, "").split("\n");
  if (/^(def|async|@)/.test(lines[0])) return lines.join("\n");
  const margin = (line) => /^\s*/.exec(line)[0].length;
  const later = lines.slice(1).filter((line) => line.trim()).map(margin);
  const least = later.length && !/^(async )?def /.test(lines[0]) ? Math.min(...later) : 0;
  return [lines[0].trim(), ...lines.slice(1).map((line) => line.slice(least))].join("\n");
}

// Show the source of a gradient rule, and that of the functions that it calls.
function drawSource(source) {
  if (!source) return element("p", { class: "muted" }, "The source of the rule is not known.");
  return [drawCode(source, "Source of the gradient rule"), (source.calls || []).map((each, i) => {
    const text = unindented(each.text);
    const open = i === 0 && text.split("\n").length <= SHORT;
    return element("details", { class: "called", open },
      element("summary", {}, i === 0 ? "It calls " : "and ", element("code", {}, each.name)), drawCode(each, `Source of ${each.name}`));
  })];
}

function drawCode(source, label) {
  const place = source.file ? `${source.file}${source.line ? `:${source.line}` : ""}` : "";
  return element("div", { class: "source" }, element("pre", { tabindex: 0, "aria-label": label },
    element("code", {}, unindented(source.text))), place && element("p", { class: "muted" }, place));
}

// Show what the rule computes for one input in one line, unless the rule says the same.
function drawFormula(input) {
  const source = sourceOf(input.source), { formula } = input;
  if (!formula || source && source.text.replace(/(\d)\.0\b/g, "$1").endsWith(`: ${formula}`)) return null;
  const [main, ...names] = formula.split(" with ");
  return element("p", { class: "formula" }, `In short: gradient of ${edges.get(input.edge).argument} = `, element("code", {}, main),
    names.length ? [", with ", names.join(" with ").split(" and ").map((each, i) => [i ? " and " : "", element("code", {}, each)])] : null);
}

// Return a button that goes to a box of the graph.
function nodeLink(node, text) {
  return element("button", { type: "button", class: "link-button", onclick: () => selectNode(node, true) }, text || nameOf(node));
}

function explainBackward({ node, step }) {
  const inputs = (step.inputs || []).filter((input) => edges.has(input.edge));
  if (node.kind === "output") return explainOutput(node, step);
  const names = inputNames(inputs.map((input) => edges.get(input.edge)));
  const shared = inputs.length && inputs.every((input) => input.source === inputs[0].source) ? sourceOf(inputs[0].source) : null;
  const one = shared && (inputs.length > 1 || !shared.for);
  const sentence = inputs.length
    ? `The gradient of ${node.root ? "the result" : describeShort(node)} arrives. The rule of ${node.name ? node.op : nameOf(node)} turns it into ` +
      `${inputs.length > 1 ? "gradients" : "the gradient"} for ${listed(names)}.`
    : `The gradient of ${describeShort(node)} arrives. No input needs a gradient.`;
  return [
    element("p", { class: "lead" }, sentence),
    drawCallouts(step),
    step.error && element("p", { class: "alarm block" }, step.error),
    drawMadeBy(node),
    element("div", { class: "incoming" }, section("Comes in", drawIncoming(node, step))),
    one && section("The gradient rule", inputs.map(drawFormula), drawSource(shared)),
    inputs.map((input) => drawInput(node, step, input, !one)),
    drawSaved(node, "Uses these saved values", step),
    drawFreed(node, step),
  ];
}

// Explain one output of an op that has several.
function explainOutput(node, step) {
  const [edge] = node.inputs;
  const op = edge ? nodes.get(edge.from).op : node.op;
  return [
    element("p", { class: "lead" }, `The gradient of ${nameOf(node)} arrives. It is one of the outputs of ${op}, whose own step waits for the gradients of all of them.`),
    element("div", { class: "incoming" }, section("Comes in", drawIncoming(node, step))),
    drawFreed(node, step),
  ];
}

// Show the sums of a step first, as sentences that lead to their pictures.
function drawCallouts(step) {
  const { broadcast, uses } = sumsOf(step);
  const callout = (kind, edge, text) => element("button", { type: "button", class: `callout ${kind}`, onclick: () =>
    byId(`input${edge.id}`).scrollIntoView({ block: "start", behavior: reducedMotion() ? "auto" : "smooth" }) }, text);
  return [broadcast.map((sum) => callout("sum", sum.edge, `${whySum(sum)[0]} ↓`)), uses.map((input) => {
    const edge = edges.get(input.edge);
    return callout("uses", edge, `${inputName(edge)} is used ${input.uses} times, so its gradient is a sum of ${input.uses}. ↓`);
  })];
}

function describeShort(node) {
  if (node.name || node.kind === "output") return nameOf(node);
  return node.op ? `the result of ${nameOf(node)}` : "this value";
}

function drawIncoming(node, step) {
  if (step.cotangents) {
    return step.cotangents.map((index, i) => drawValue(index, { title: `gradient of output ${i}`, missing: "No gradient came in." }));
  }
  const value = drawValue(step.cotangent, { title: `gradient of ${nameOf(node)}` });
  const first = node.root && valueAt(step.cotangent);
  return first && !first.shape.length
    ? [element("p", {}, "The backward pass starts here. A result changes by as much as itself, so its gradient is 1."), value] : value;
}

// Show what goes out to one input: the rule, its result, the sums, the cast, the check.
function drawInput(node, step, input, ownRule) {
  const edge = edges.get(input.edge);
  const sum = broadcastSum(step, input);
  const after = sum && !sum.inside ? input.sum : input.result;
  const title = [`Goes out to ${inputName(edge)}`, edge.argument && edge.argument !== inputName(edge)
    ? element("span", { class: "muted" }, `, its argument ${edge.argument}`) : null];
  return element("section", { class: "input", id: `input${edge.id}` }, element("h3", {}, title),
    ownRule && [drawFormula(input), drawSource(sourceOf(input.source))],
    sum && drawSum(sum),
    !sum && drawProduct(node, step, input, drawValue(input.result, { title: isSharedUse(input) ? "the rule gives" : `gradient for ${inputName(edge)}`,
      missing: "The value is not known, because the graph has been freed." })),
    sum && sum.after.heat && drawValue(after, { title: `gradient for ${inputName(edge)}` }),
    input.cast && element("p", {}, `The gradient is converted to ${input.cast}, the dtype of ${inputName(edge)}.`),
    isSharedUse(input) && drawUses(input, after),
    drawCheck(edge));
}

// Return the two matrices of a formula like "g.T @ x", or null: {name, turned, value} for the left and the right one.
function factorsOf(node, step, input) {
  const found = /^(\w+)(\.T)? @ (\w+)(\.T)?$/.exec(input.formula || "");
  if (!found) return null;
  const valueOf = (name) => valueAt(name === "g" ? step.cotangent : (node.saved || []).find((each) => each.name === name)?.value);
  const factors = [[found[1], found[2]], [found[3], found[4]]].map(([name, turned]) => ({ name, turned: Boolean(turned), value: valueOf(name) }));
  return factors.every(({ value }) => value && value.shape.length === 2) ? factors : null;
}

// Add to the gradient of a matrix product why it is a sum, and to each of its entries how it is computed.
function drawProduct(node, step, input, figure) {
  const factors = factorsOf(node, step, input);
  if (!factors) return figure;
  const [left, right] = factors, edge = edges.get(input.edge);
  const count = left.value.shape[left.turned ? 0 : 1];
  const overRows = left.turned && left.value.shape.length === 2;
  const word = overRows ? "row" : "k", many = overRows ? plural(count, "row") : plural(count, "value", "values").replace("values", "values of k");
  const why = overRows && `${inputName(edge)} was used for each of the ${many}, so each entry of its gradient is a sum of ${many}.`;
  const small = left.value.numbers !== undefined && right.value.numbers !== undefined;
  const entryOf = ({ turned, value }, i, j) => turned ? value.numbers[j][i] : value.numbers[i][j];
  const placeOf = ({ name, turned }, i, j) => turned ? `${name}[${j}, ${i}]` : `${name}[${i}, ${j}]`;
  const explain = (i, j) => {
    const terms = [...Array(count).keys()].map((k) => [entryOf(left, i, k), entryOf(right, k, j)]);
    const shown = terms.slice(0, 4).map(([a, b]) => `${number(a, 3)} * ${number(b, 3)}`).join(" + ") + (terms.length > 4 ? " + …" : "");
    return `entry [${i}, ${j}] = sum over ${many} of ${placeOf(left, i, word)} * ${placeOf(right, word, j)} = ${shown} = ` +
      number(terms.reduce((sum, [a, b]) => sum + a * b, 0), 3);
  };
  const cells = [...figure.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll(".entry")]);
  if (small) exploreCells(cells, explain);
  return [why && element("p", { class: "key-sentence" }, why), figure,
    small && cells.length ? element("p", { class: "muted" }, "Point at an entry to see how it is computed.") : null];
}

// Explain the cells of a table on hover and on focus. The Tab key enters the table, the arrow keys move inside it.
function exploreCells(cells, explain) {
  cells.forEach((row, i) => row.forEach((node, j) => {
    node.tabIndex = i || j ? -1 : 0;
    tip(node, () => explain(i, j));
    node.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
      const next = (down || right) && cells[i + down]?.[j + right];
      if (!down && !right) return;
      event.preventDefault();
      event.stopPropagation();
      if (!next) return;
      node.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }));
}

// Show the gradient by the rule and by finite differences.
function drawCheck(edge) {
  const { check } = edge;
  if (!check) return null;
  if (check.why_not) return element("p", { class: "check muted" }, `Not compared with finite differences: ${check.why_not}`);
  const verdict = element("p", { class: `verdict ${check.ok ? "right" : "wrong"}` },
    check.ok ? "✓ Finite differences agree." : "✗ Finite differences disagree.",
    check.error !== null && check.error !== undefined ? ` Largest relative error: ${number(check.error, 2)}.` : "");
  const kinks = (check.kinks || []).map((kink) => element("li", {},
    `At [${(kink.index || []).join(", ")}] the function has a kink. Every slope from ${number(kink.low)} to ${number(kink.high)} is right there.`));
  return element("section", { class: "check", "aria-label": "Finite differences" }, verdict,
    element("details", { open: !check.ok || isSmall(check.analytic) }, element("summary", {}, "Compare the numbers"),
      element("div", { class: "pair" }, drawValue(check.analytic, { title: "by the rule", compact: true }),
        drawValue(check.numeric, { title: "by finite differences", compact: true }))),
    kinks.length ? element("ul", { class: "kinks" }, kinks.slice(0, 8),
      kinks.length > 8 ? element("li", {}, `${kinks.length - 8} more entries are at a kink.`) : null) : null);
}

function isSmall(index) {
  const value = valueAt(index);
  return Boolean(value) && value.shape.reduce((a, b) => a * b, 1) <= 8;
}

function drawMadeBy(node) {
  const maker = nodes.get(node.of);
  return maker ? element("p", { class: "second-note" }, "The gradient rule of ", nodeLink(maker),
    " computed this value, so it belongs to the graph of a gradient.") : null;
}

// Return whether the source of the rules of a step names a saved value. An unknown source may use all.
function isUsed(step, name) {
  const sources = (step.inputs || []).map((input) => sourceOf(input.source));
  if (!sources.length || !sources.every((source) => source && /^(lambda|def)/.test(source.text) && !/\*\w/.test(source.text.split(":")[0]))) return true;
  return sources.some((source) => new RegExp(`\\b${name.replace(/\W/g, "\\$&")}`).test(source.text));
}

// Show what an op has saved for its backward step. With the step, say which values its rules do not use.
function drawSaved(node, title, step = null) {
  const saved = node.saved || [];
  if (!saved.length) return section(title, element("p", { class: "muted" }, "None. The rule needs no saved value."));
  return section(title, element("ul", { class: "saved" }, saved.map((each) => {
    const owner = nodes.get(each.node);
    const unused = step && !isUsed(step, each.name) ? ", kept, but not used by this rule" : "";
    if (each.value === null || each.value === undefined) {
      return element("li", {}, element("b", {}, each.name), each.text ? ` is ${each.text}` : "", element("span", { class: "muted" }, unused));
    }
    const from = owner && owner !== node && (owner.name || owner.op) ? element("span", {}, " the value of ", nodeLink(owner)) : owner === node ? " this result" : "";
    return element("li", {}, element("details", {},
      element("summary", {}, element("b", {}, each.name), element("span", { class: "muted" }, ` ${dims(valueAt(each.value).shape)}, ${bytes(each.bytes)}${unused}`)),
      from && element("p", { class: "muted" }, from), drawValue(each.value)));
  })));
}

function drawFreed(node, step) {
  const names = step.freed || [], now = node.backwardAt;
  const saved = (node.saved || []).filter((each) => each.bytes && !names.includes(each.name));
  const frees = (each) => freedAt.get(memoryOf(each));
  const shared = saved.filter((each) => frees(each) > now), alive = saved.filter((each) => frees(each) === undefined);
  const text = names.length
    ? `After this step nothing needs ${listed(names.map((name) => savedName(node, name)))} any more: ${bytes(step.freed_bytes)} are freed.`
    : "This step frees no memory.";
  const words = [text, ...shared.map((each) => `${savedName(node, each.name)} stays, because ${nameOf(steps[frees(each)].node)} still needs the same array.`),
    alive.length && `Not counted: ${listed([...new Set(alive.map((each) => savedName(node, each.name)))])}. Your program or the model holds ` +
      `${alive.length > 1 ? "them" : "it"} anyway.`].filter(Boolean);
  return section("Memory", element("p", {}, words.map((each) => each[0].toUpperCase() + each.slice(1)).join(" ")), memoryBar(steps[node.backwardAt], step.freed_bytes || 0));
}

// Return a saved value in words: "the result of tanh", "the value of sub (x of pow)", or the name of a leaf.
function savedName(node, name) {
  const owner = nodes.get((node.saved || []).find((each) => each.name === name)?.node);
  if (!owner) return `${name} of ${node.op}`;
  if (owner === node) return `the result of ${nameOf(node)}`;
  return owner.kind === "op" || owner.kind === "output" ? `the result of ${nameOf(owner)} (${name} of ${node.op})` : nameOf(owner);
}

// Show the memory that is held for the backward pass, and what this step has freed, as a bar.
function memoryBar(step, freed) {
  if (!step.whole) return null;
  const words = `${bytes(Math.round(step.held))} of ${bytes(step.whole)} of saved values are still held.`;
  const held = element("i", { class: "held" }), gone = element("i", { class: "gone" });
  held.style.width = `${step.held / step.whole * 100}%`;
  gone.style.width = `${freed / step.whole * 100}%`;
  return element("div", {}, element("div", { class: "memory", role: "img", "aria-label": words }, held, gone),
    element("p", { class: "muted" }, words));
}
