// The data of the page, with what the other scripts look up: inputs, outputs, modules, order.

const data = JSON.parse(byId("data").textContent);
for (const name of ["notes", "modules", "nodes", "edges", "sources", "values", "forward", "backward", "gradients",
  "checks"]) data[name] = data[name] || [];

const LONGEST = 140;  // a list of more boxes than this is cut into parts
const nodes = new Map(data.nodes.map((node) => [node.id, node]));
const edges = new Map();
const modules = new Map();

function indexGraph() {
  for (const node of data.nodes) Object.assign(node, { shape: node.shape || [], inputs: [], outputs: [], rules: [] });
  for (const edge of data.edges) {
    if (!nodes.has(edge.from) || !nodes.has(edge.to)) continue;
    edges.set(edge.id, edge);
    nodes.get(edge.to).inputs.push(edge);
    nodes.get(edge.from).outputs.push(edge);
  }
  for (const node of data.nodes) node.inputs.sort((a, b) => (a.position || 0) - (b.position || 0));
  for (const node of data.nodes) if (nodes.has(node.of)) nodes.get(node.of).rules.push(node);
  for (const check of data.checks) if (edges.has(check.edge)) edges.get(check.edge).check = check;
  for (const module of data.modules) addModule(module, module.parent ?? null);
  rankNodes();
  for (const node of data.nodes) {
    node.parent = modules.has(node.module) ? node.module : null;
    if (node.parent !== null) modules.get(node.parent).members.push(node);
  }
  cutIntoParts(null, data.nodes.filter((node) => node.parent === null));
  for (const module of [...modules.values()]) cutIntoParts(module.id, module.members);
  for (const module of modules.values()) module.parentList = ancestors(module.parent);
  for (const node of data.nodes) {
    node.parentList = ancestors(node.parent);
    for (const id of node.parentList) modules.get(id).all.push(node);
  }
}

function addModule(module, parent) {
  modules.set(module.id, { ...module, parent, members: [], all: [], label: moduleLabel(module, parent) });
}

function moduleLabel(module, parent) {
  const above = modules.get(parent);
  const prefix = above && above.name ? `${above.name}.` : "";
  const name = String(module.name || "");
  const short = prefix && name.startsWith(prefix) ? name.slice(prefix.length) : name;
  return [short, module.type].filter(Boolean).join(" · ") || "module";
}

// Give each node a rank, so that a node has a higher one than its inputs. A value comes just before its first use.
function rankNodes() {
  const waiting = new Map(data.nodes.map((node) => [node.id, node.inputs.length]));
  const ready = data.nodes.filter((node) => !node.inputs.length);
  let rank = 0;
  for (let i = 0; i < ready.length; i += 1) {
    for (const edge of ready[i].outputs) {
      waiting.set(edge.to, waiting.get(edge.to) - 1);
      if (waiting.get(edge.to) === 0) ready.push(nodes.get(edge.to));
    }
  }
  for (const node of ready) node.rank = rank++;
  for (const node of data.nodes) node.rank ??= rank++;
  data.forward.forEach((id, i) => { if (nodes.has(id)) nodes.get(id).rank = data.nodes.length + i; });
  const late = [...ready].filter((node) => !node.inputs.length && !data.forward.includes(node.id));
  for (const node of late) {
    const uses = node.outputs.map((edge) => nodes.get(edge.to).rank);
    if (uses.length) node.rank = Math.min(...uses) - 0.5;
  }
}

// Cut a long list of nodes that are directly in one module into parts that fold like modules.
function cutIntoParts(parent, members) {
  if (members.length <= LONGEST) return;
  const sorted = [...members].sort((a, b) => a.rank - b.rank);
  const size = Math.max(40, Math.ceil(sorted.length / LONGEST));
  for (let i = 0; i < sorted.length; i += size) {
    const part = sorted.slice(i, i + size);
    const id = `part ${parent} ${i}`;
    const names = [...new Set(part.filter((node) => node.kind === "op").map((node) => node.op))];
    addModule({ id, name: `part ${i / size + 1}`, type: clip(names.join(", "), 40), part: true }, parent);
    modules.get(id).members = part;
    for (const node of part) node.parent = id;
  }
  if (parent !== null) modules.get(parent).members = [];
}

// Return the ids of a module and of those around it, the outermost first.
function ancestors(id) {
  const list = [];
  while (modules.has(id) && !list.includes(id)) { list.unshift(id); id = modules.get(id).parent; }
  return list;
}

// Return what a person calls a node: its name, or its op, or the argument that it is for. In an overview of a huge graph
// a node can be a module.
const nameOf = (node) => node.kind === "module" ? moduleLabel({ name: node.name, type: node.op }, null)
  : node.name || node.label || node.op || useOf(node) || node.kind;

// Return the name of a node in a sentence that names its use, too.
const shortName = (node) => node.name || node.op ? nameOf(node) : node.kind === "constant" ? "A constant" : `A ${KINDS[node.kind]} without a name`;

// Return the first use of a value without a name: "target of cross_entropy".
function useOf(node) {
  const [edge] = node.outputs;
  return edge && edge.argument ? `${edge.argument} of ${nodes.get(edge.to).op}` : "";
}

// Name ops of the same kind after their modules, "0 · linear", and number those that are still alike.
function labelOps() {
  const count = (list, of) => list.reduce((counts, node) => counts.set(of(node), (counts.get(of(node)) || 0) + 1), new Map());
  const plain = data.nodes.filter((node) => node.kind === "op" && !node.name).sort((a, b) => a.rank - b.rank);
  const sameOp = count(plain, (node) => node.op);
  for (const node of plain) {
    const name = modules.get(node.module)?.name;
    node.label = sameOp.get(node.op) > 1 && name ? `${name} · ${node.op}` : node.op;
  }
  const same = count(plain, (node) => node.label), seen = new Map();
  for (const node of plain) {
    const { label } = node;
    seen.set(label, (seen.get(label) || 0) + 1);
    node.numbered = same.get(label) > 1;
    if (node.numbered) node.label = `${label} ${seen.get(label)}`;
  }
}

const KINDS = { module: "module", op: "op", output: "output", parameter: "parameter", leaf: "leaf", constant: "constant" };

// Return a node in words for a screen reader and for lists.
function describe(node) {
  const what = node.kind === "op" ? node.name ? `${node.op}, named ${node.name}` : nameOf(node)
    : `${KINDS[node.kind] || node.kind} ${node.name || useOf(node)}`;
  const second = node.order > 1 ? ", of the gradient's graph" : "";
  return `${what}, ${dims(node.shape)}, ${node.dtype || "unknown dtype"}${second}`;
}

indexGraph();
labelOps();
