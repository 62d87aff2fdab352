// The panel: the explanation of the step, or of the selected box, module or edge.

function explainStep(index) {
  const step = steps[index];
  const heading = element("h2", { id: "heading" }, stepTitle(index));
  const body = { start: explainStart, given: explainGiven, forward: explainForward, backward: explainBackward, end: explainEnd }[step.kind](step);
  return [heading, insideNote(step.node), body];
}

// Say which folded module hides the op of the step.
function insideNote(node) {
  if (!node) return null;
  const box = drawn.boxes.get(boxKey(node));
  if (!box || !box.module) return null;
  return element("p", { class: "inside" }, `This op is inside the folded module ${box.module.label}. `,
    element("button", { type: "button", class: "link-button", onclick: () => showNode(node) }, "Open it"));
}

function explainStart() {
  const ops = data.nodes.filter((node) => node.kind === "op").length;
  const parameters = data.nodes.filter((node) => node.kind === "parameter").length;
  const counts = [plural(ops, "op"), parameters && plural(parameters, "parameter"),
    data.modules.length && plural(data.modules.length, "module")].filter(Boolean);
  return [
    data.notes.map((note) => element("p", { class: "note" }, note)),
    element("p", { class: "lead" }, `The picture shows how ${data.title || "the result"} was computed: ${listed(counts)}. Values flow from the top to the bottom.`),
    data.backward.length
      ? [element("p", {}, `A gradient says how ${data.title || "the result"} changes when an entry grows by a little. Training needs it: ` +
        "it moves each entry of a parameter against its gradient, so that the loss falls."),
      element("p", {}, "Press the right arrow key, or the button below the picture, to take one step. First each op computes " +
        "its result. Then the backward pass goes from the result up, and each op turns the gradient of its result into gradients of its inputs.")]
      : element("p", {}, "Press the right arrow key, or the button below the picture, to see one op after the other. " +
        "There is no backward pass to show."),
    notable.length ? section("Worth a look", drawNotable()) : null,
    data.checks.length ? section("Finite differences", checkSummary()) : null,
    section("Colours", legendOfBoxes()),
  ];
}

// Show what the graph begins with: data, parameters and other leaves.
function explainGiven() {
  const counts = [["constant", "input that is data", "inputs that are data"], ["leaf", "tensor that gets a gradient", "tensors that get a gradient"],
    ["parameter", "parameter, which training changes", "parameters, which training changes"]].map(([kind, one, many]) => {
    const count = given.filter((node) => node.kind === kind).length;
    return count ? plural(count, one, many) : "";
  }).filter(Boolean);
  return [
    element("p", { class: "lead" }, `No op computes these values. The graph begins with ${listed(counts)}.`),
    given.slice(0, MANY).map((node) => section([nodeLink(node), element("span", { class: "muted" }, ` ${KINDS[node.kind]}`)],
      drawValue(node.value, { missing: node.why_no_value }))),
    given.length > MANY ? element("p", { class: "muted" }, `${given.length - MANY} more are in the picture.`) : null,
  ];
}

function drawNotable() {
  const order = { odd: 0, sum: 1, uses: 2 };
  const groups = new Map();
  for (const each of [...notable].sort((a, b) => order[a.kind] - order[b.kind] || a.index - b.index)) {
    groups.set(each.text, { ...each, count: (groups.get(each.text)?.count || 0) + 1, index: groups.get(each.text)?.index ?? each.index });
  }
  // One line is enough for the results of ops, which can be hundreds.
  const inner = [...groups.values()].filter((each) => each.inner);
  if (inner.length > 4) {
    for (const each of inner) groups.delete(each.text);
    const total = inner.reduce((sum, each) => sum + each.count, 0);
    const text = `${total} results of ops are used several times, so their gradients are sums.`;
    groups.set(text, { ...inner[0], text, count: 1 });
  }
  const sorted = [...groups.values()];
  const item = ({ kind, index, text, count }) => element("li", { class: kind }, element("button", { type: "button",
    class: "link-button", onclick: () => goTo(index) }, text), count > 1 ? element("span", { class: "muted" }, ` ${count} steps`) : null);
  const list = element("ul", { class: "notable" }, sorted.slice(0, 12).map(item));
  if (sorted.length > 12) {
    const more = element("button", { type: "button", onclick: () => more.parentNode.replaceWith(...sorted.slice(12).map(item)) },
      `Show ${sorted.length - 12} more`);
    list.append(element("li", { class: "plain" }, more));
  }
  return list;
}

function checkSummary() {
  const wrong = data.checks.filter((check) => !check.ok && !check.why_not).length;
  const skipped = data.checks.filter((check) => check.why_not).length;
  const right = data.checks.length - wrong - skipped;
  return [element("p", { class: `verdict ${wrong ? "wrong" : "right"}` },
    wrong ? `✗ ${plural(wrong, "gradient")} of ${data.checks.length} disagree with finite differences.`
      : `✓ ${plural(right, "gradient")} agree with finite differences.`),
  skipped ? element("p", { class: "muted" }, `${plural(skipped, "edge")} could not be compared.`) : null];
}

function legendOfBoxes() {
  const words = { op: "an op", parameter: "a parameter", leaf: "another tensor that gets a gradient", constant: "data: a value without a gradient" };
  const rows = Object.entries(words).filter(([kind]) => data.nodes.some((node) => node.kind === kind));
  if (modules.size) rows.push(["module", "a folded module: click it to open it"]);
  if (data.nodes.some((node) => node.order > 1)) rows.push(["second", "an op that computes a gradient"]);
  return element("ul", { class: "legend" }, rows.map(([kind, text]) => element("li", {}, element("i", { class: `swatch ${kind}` }), text)));
}

// The marks that a step leaves in the picture, and the colours of the panel.
function legendOfMarks() {
  const rows = [["now", "the op of this step, forwards"], ["now-backwards", "the op of this step, backwards"],
    ["waiting", "pale: its step has not come yet"], ["root", `the result, ${data.title || "from which the backward pass starts"}`],
    ["negative-cell", "a negative entry"], ["positive-cell", "a positive entry"], ["held", "memory that is held"], ["gone", "memory that this step frees"]];
  return element("ul", { class: "legend" }, rows.map(([kind, text]) => element("li", {}, element("i", { class: `swatch ${kind}` }), text)));
}

function explainForward({ node }) {
  const inputs = node.inputs.map((edge) => ({ edge, source: nodes.get(edge.from) }));
  const names = inputNames(node.inputs);
  const isOp = node.kind === "op" || node.kind === "output";
  const lead = isOp ? `${node.op} takes ${names.length ? listed(names) : "no tensor"}, and gives ${dims(node.shape)}.`
    : { parameter: `${nameOf(node)} is a parameter: training changes it, so it gets a gradient.`,
      leaf: `${nameOf(node)} is a tensor that gets a gradient.`,
      constant: `${nameOf(node)} is data: training does not change it, so it gets no gradient.`,
      module: `${nameOf(node)} has ${plural(node.count || 0, "node")}. This overview shows it as one box.` }[node.kind] || describe(node);
  return [
    element("p", { class: "lead" }, lead),
    isOp && node.doc && element("p", { class: "doc" }, plainDoc(node.doc)),
    drawMadeBy(node),
    inputs.length ? section("Inputs", inputs.map(({ edge, source }) => drawValue(source.value,
      { title: argumentTitle(edge),
        missing: source.why_no_value }))) : null,
    (node.not_kept || []).map((each) => drawNotKept(each)),
    node.kind === "module" ? null : section(isOp ? "Result" : "Value", drawValue(node.value, { title: node.name || (isOp ? "" : ""), missing: node.why_no_value })),
    isOp ? drawSaved(node, "Saves for the backward step") : null,
    isOp || node.line ? section("Details", drawDetails(node)) : null,
  ];
}

function argumentTitle(edge) {
  const name = inputName(edge);
  return edge.argument && ![edge.argument, `the constant ${edge.argument}`].includes(name) ? `${edge.argument} = ${name}` : edge.argument || name;
}

// Show an argument that the graph does not hold, because no rule needs it.
function drawNotKept({ name, shape: size, value, text }) {
  const known = value !== null && value !== undefined;
  const what = text ? ` is ${text}.` : size && !known ? `, ${dims(size)}.` : known ? "" : ".";
  return element("div", { class: "not-kept" }, element("p", {}, element("b", {}, name), what, element("span", { class: "muted" },
    " A constant: no gradient rule needs it, so the graph does not keep it.")), known ? drawValue(value, { compact: true }) : null);
}

const plainDoc = (text) => text.replace(/``/g, "").replace(/:\w+:`~?([^`]*)`/g, "$1");

function explainEnd() {
  if (!data.gradients.length) return [element("p", { class: "lead" }, "The backward pass is done. No tensor gets a gradient.")];
  return [
    element("p", { class: "lead" }, "The backward pass is done. Each gradient has the shape of its tensor. " +
      `It says how ${data.title || "the result"} changes when an entry grows.`),
    data.gradients.filter(({ node }) => nodes.has(node)).map(({ node, value }) => section(
      [nodeLink(nodes.get(node)), element("span", { class: "muted" }, " gradient")], drawValue(value))),
  ];
}

function drawDetails(node) {
  const rows = [
    ["op", node.kind === "op" ? node.op : null], ["name", node.name], ["kind", node.kind === "op" ? null : KINDS[node.kind]],
    ["shape", dims(node.shape)], ["dtype", node.dtype], ["device", node.device === "cpu" ? null : node.device],
    ["size", node.bytes === null || node.bytes === undefined ? null : bytes(node.bytes)],
    ["time", node.kind === "op" && node.seconds ? seconds(node.seconds) : null],
    ["time backwards", node.backwardAt === undefined ? null : seconds(steps[node.backwardAt].step.seconds)],
    ["module", node.parentList.map((id) => modules.get(id)).filter((module) => !module.part).map((module) => module.label).join(" › ") || null],
    ["line", node.line],
  ].filter(([, text]) => text);
  return element("dl", {}, rows.map(([name, text]) => [element("dt", {}, name),
    element("dd", { class: name === "line" ? "code" : null }, text)]));
}

function explainNode(node) {
  const jump = (index, text) => index === undefined ? null : element("button", { type: "button", onclick: () => goTo(index) }, text);
  const list = (title, all, end) => all.length ? section(title, element("ul", {}, all.slice(0, 40).map((edge) =>
    element("li", {}, nodeLink(nodes.get(edge[end])), element("span", { class: "muted" }, ` ${edge.argument || ""}`), drawMark(edge))))) : null;
  const gradient = data.gradients.find((each) => each.node === node.id), from = gradientFrom.get(node.id);
  const showSource = () => {
    goTo(from.index);
    byId(`input${from.edge}`)?.scrollIntoView({ block: "start" });
  };
  return [
    element("h2", { id: "heading" }, node.kind === "op" && node.name ? `${node.name} = ${node.op}` : nameOf(node)),
    node.doc && element("p", { class: "doc" }, plainDoc(node.doc)),
    drawMadeBy(node),
    element("p", { class: "controls" }, jump(node.forwardAt, "Its step forwards"), " ", jump(node.backwardAt, "Its step backwards"), " ",
      from && node.backwardAt === undefined && element("button", { type: "button", onclick: showSource }, "Where its gradient comes from")),
    section("Details", drawDetails(node)),
    section("Value", drawValue(node.value, { missing: node.why_no_value })),
    gradient && from ? section("Gradient", at >= from.index ? drawValue(gradient.value)
      : element("p", { class: "muted" }, "The backward pass has not reached it yet.")) : null,
    list("Inputs", node.inputs, "from"),
    list("Used by", node.outputs, "to"),
    node.saved && node.saved.length ? drawSaved(node, "Saves for the backward step") : null,
    node.rules.length ? section("Ops that its gradient rule ran", element("ul", {}, node.rules.slice(0, 40).map((each) =>
      element("li", {}, nodeLink(each))))) : null,
  ];
}

function drawMark(edge) {
  if (!edge.check || edge.check.why_not) return null;
  return element("span", { class: `verdict ${edge.check.ok ? "right" : "wrong"}` }, edge.check.ok ? " ✓ agrees" : " ✗ differs");
}

function explainModule(module) {
  const isOpen = open.has(module.id);
  const sum = (list, of) => list.reduce((total, node) => total + (of(node) || 0), 0);
  const parameters = module.all.filter((node) => node.kind === "parameter");
  const time = module.all.some((node) => node.seconds) ? seconds(sum(module.all, (node) => node.seconds)) : null;
  const rows = [["ops", module.all.filter((node) => node.kind === "op").length], ["parameters", parameters.length],
    ["numbers in them", sum(parameters, (node) => node.shape.reduce((a, b) => a * b, 1))], ["time of its ops", time]];
  return [
    element("h2", { id: "heading" }, module.label),
    element("p", {}, module.part ? "These ops follow each other. They are one box, because the graph is long."
      : `${module.name || "This module"}${module.type ? ` is a ${module.type}` : ""}.`),
    element("p", { class: "controls" }, element("button", { type: "button", onclick: () => toggleModule(module.id) },
      isOpen ? "Fold it" : "Open it")),
    element("dl", {}, rows.filter(([, value]) => value !== null).map(([name, value]) => [element("dt", {}, name),
      element("dd", {}, typeof value === "number" ? value.toLocaleString("en") : value)])),
    section("Ops", element("ul", {}, module.all.filter((node) => node.kind === "op").slice(0, 40).map((node) =>
      element("li", {}, nodeLink(node, `${node.name ? `${node.name} = ` : ""}${node.op}`))))),
  ];
}

function explainLink(link) {
  return [
    element("h2", { id: "heading" }, link.edges.length > 1 ? plural(link.edges.length, "edge") : "One edge"),
    link.edges.slice(0, 40).map((edge) => element("section", {},
      element("p", {}, nodeLink(nodes.get(edge.from), shortName(nodes.get(edge.from))), " is argument ", element("b", {}, edge.argument || String(edge.position)), " of ",
        nodeLink(nodes.get(edge.to)), "."), drawCheck(edge))),
  ];
}
