// The steps: a start, each op forwards, each op backwards, and the gradients at the end.

const steps = [{ kind: "start" }];
// The values that no op computes come in one step.
const given = data.forward.map((id) => nodes.get(id)).filter((node) => node && ["parameter", "leaf", "constant"].includes(node.kind));
if (given.length) steps.push({ kind: "given" });
const firstForward = steps.length;
for (const id of data.forward) if (nodes.has(id) && !given.includes(nodes.get(id))) steps.push({ kind: "forward", node: nodes.get(id) });
const firstBackward = steps.length;
for (const step of data.backward) if (nodes.has(step.node)) steps.push({ kind: "backward", node: nodes.get(step.node), step });
if (data.backward.length) steps.push({ kind: "end" });

steps.forEach((step, i) => {
  step.index = i;
  if (step.node) step.node[step.kind === "forward" ? "forwardAt" : "backwardAt"] ??= i;
});

// Count the bytes that are still held after each backward step.
function countMemory() {
  const backward = steps.filter((each) => each.step);
  const whole = backward.reduce((sum, { step }) => sum + (step.freed_bytes || 0), 0);
  let held = whole;
  for (const each of backward) {
    held -= each.step.freed_bytes || 0;
    Object.assign(each, { held, whole });
  }
}

countMemory();
for (const node of given) node.forwardAt = 1;

// Return what tells the memory of a saved value from others.
const memoryOf = (saved) => saved.memory ?? `of node ${saved.node}`;

// Note for each node the last step that adds to its gradient, and for each memory the step that frees it.
const gradientFrom = new Map(), freedAt = new Map();
for (const { step, node, index } of steps.filter((each) => each.step)) {
  for (const input of step.inputs || []) if (edges.has(input.edge)) gradientFrom.set(edges.get(input.edge).from, { index, edge: input.edge });
  for (const name of step.freed || []) {
    const saved = (node.saved || []).find((each) => each.name === name);
    if (saved) freedAt.set(memoryOf(saved), index);
  }
}

// Return whether a value is used by several ops. The outputs of one op, like those of split, are no such uses.
function isSharedUse(input) {
  const edge = edges.get(input.edge);
  return Boolean(edge) && input.uses > 1 && nodes.get(edge.to).kind !== "output";
}

// Return the inputs of a backward step that have a sum of either kind.
function sumsOf(step) {
  const inputs = step.inputs || [];
  return {
    broadcast: inputs.map((input) => broadcastSum(step, input)).filter(Boolean),
    uses: inputs.filter(isSharedUse),
  };
}

// Return the name of an input, with its module if it has no name of its own.
function placeName(edge) {
  const module = modules.get(nodes.get(edge.from).module);
  const source = nodes.get(edge.from), name = inputName(edge);
  if (name === edge.argument && !source.name) return `argument ${name} of ${nameOf(nodes.get(edge.to))}`;
  return source.name || !module || !module.name ? name : `${name} in ${module.name}`;
}

const isOdd = (index) => { const value = valueAt(index); return Boolean(value && (value.nans || value.infs)); };

// Return the steps that a reader may want to see first: {kind, index, text, inner}; inner for results of ops.
function notablePlaces() {
  const found = [];
  const add = (kind, index, text, inner = false) => found.push({ kind, index, text, inner });
  for (const { kind, node, step, index } of steps) {
    if (kind === "forward" && isOdd(node.value) && !node.inputs.some((edge) => isOdd(nodes.get(edge.from).value))) {
      add("odd", index, `${nameOf(node)} has NaN or infinite entries, though its inputs have none.`);
    }
    if (kind !== "backward") continue;
    if (step.error) add("odd", index, `The backward pass stops at ${nameOf(node)}.`);
    if (!isOdd(step.cotangent) && (step.inputs || []).some((input) => isOdd(input.result))) {
      add("odd", index, `The gradient rule of ${nameOf(node)} gives NaN or infinite entries.`);
    }
    const { broadcast, uses } = sumsOf(step);
    for (const sum of broadcast) {
      const { count, word, many } = summedWords(sum);
      add("sum", index, `The gradient of ${placeName(sum.edge)} is a sum of ${count === 1 ? `1 ${word}` : `${count} ${many}`}.`);
    }
    for (const input of uses) {
      if (input.use === input.uses) {
        add("uses", index, `The gradient of ${placeName(edges.get(input.edge))} is a sum over its ${input.uses} uses.`,
          nodes.get(edges.get(input.edge).from).kind === "op");
      }
    }
  }
  for (const node of given) if (isOdd(node.value)) add("odd", 1, `${nameOf(node)} has NaN or infinite entries.`);
  for (const edge of edges.values()) {
    const at = nodes.get(edge.to).backwardAt;
    if (edge.check && !edge.check.ok && !edge.check.why_not && at !== undefined) {
      add("odd", at, `The gradient of ${inputName(edge)} in ${nameOf(nodes.get(edge.to))} differs from finite differences.`);
    }
  }
  return found;
}

const notable = notablePlaces();

// Return the title of a step, which the page shows and a screen reader says.
function stepTitle(index) {
  const { kind, node } = steps[index];
  if (kind === "start") return "Start";
  if (kind === "end") return "The end: the gradients";
  if (kind === "given") return "The inputs and parameters";
  const count = data.backward.length;
  const name = (node.kind === "op" || node.kind === "output") && node.name ? `${node.op} (${node.name})` : nameOf(node);
  if (kind === "forward") return `Forwards ${index - firstForward + 1} of ${firstBackward - firstForward}: ${name}`;
  return `Backwards ${index - firstBackward + 1} of ${count}: ${name}`;
}

// Return what the picture shows at a step, as sets of keys of boxes and links.
function stepMarks(index) {
  const current = steps[index];
  const marks = { done: new Set(), waiting: new Set(), near: new Set(), flow: new Map(), now: null,
    backwards: current.kind === "backward" || current.kind === "end" };
  if (current.kind === "start") return marks;
  const progress = new Map();
  for (const node of data.nodes) {
    const key = boxKey(node), count = progress.get(key) || { done: 0, all: 0 };
    const at = marks.backwards ? node.backwardAt : node.forwardAt;
    if (at !== undefined) { count.all += 1; if (at <= index) count.done += 1; }
    progress.set(key, count);
  }
  for (const [key, { done, all }] of progress) {
    if (all && done === all) marks.done.add(key);
    else if (all && !done && current.kind !== "end") marks.waiting.add(key);
  }
  if (current.kind === "given") for (const node of given) marks.near.add(boxKey(node));
  if (!current.node) return marks;
  marks.now = boxKey(current.node);
  const used = current.kind === "backward" ? new Set((current.step.inputs || []).map((input) => input.edge)) : null;
  for (const edge of current.node.inputs) {
    if (used && !used.has(edge.id)) continue;
    const from = boxKey(nodes.get(edge.from));
    marks.flow.set(`${from}>${marks.now}`, current.kind === "backward" ? "up" : "down");
    if (from !== marks.now) marks.near.add(from);
  }
  return marks;
}
