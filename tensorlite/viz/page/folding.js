// Which modules are open, and the boxes and links that are drawn then. Folding changes the picture alone.

const MANY = 60;  // so many boxes are drawn at the start, if the modules allow it
const open = new Set();

// Open modules from the outside, the small ones first, while the picture stays small.
function openAtStart() {
  open.clear();
  let level = [...modules.values()].filter((module) => module.parent === null);
  if (level.length === 1) open.add(level[0].id);
  while (level.length) {
    for (const module of [...level].sort((a, b) => a.all.length - b.all.length)) {
      if (open.has(module.id)) continue;
      open.add(module.id);
      if (countBoxes() > MANY) open.delete(module.id);
    }
    const inside = new Set(level.filter((module) => open.has(module.id)).map((module) => module.id));
    level = [...modules.values()].filter((module) => inside.has(module.parent));
  }
}

function countBoxes() {
  const seen = new Set();
  for (const node of data.nodes) seen.add(boxKey(node));
  return seen.size;
}

// Return the key of the box that stands for a node: its own, or that of the outermost folded module around it.
function boxKey(node) {
  const folded = node.parentList.find((id) => !open.has(id));
  return folded === undefined ? `n${node.id}` : `m${folded}`;
}

// Return the boxes and the links to draw. A link has all edges between two boxes.
function visibleGraph() {
  const boxes = new Map();
  for (const node of data.nodes) {
    const key = boxKey(node);
    if (!boxes.has(key)) boxes.set(key, makeBox(key, node));
    const box = boxes.get(key);
    box.nodes.push(node);
    box.rank = Math.min(box.rank, node.rank);
  }
  const links = new Map();
  for (const edge of edges.values()) {
    const from = boxKey(nodes.get(edge.from)), to = boxKey(nodes.get(edge.to));
    if (from === to) continue;
    const key = `${from}>${to}`;
    if (!links.has(key)) links.set(key, { key, from: boxes.get(from), to: boxes.get(to), edges: [] });
    links.get(key).edges.push(edge);
  }
  return { boxes, links };
}

function makeBox(key, node) {
  const box = { key, nodes: [], rank: Infinity };
  if (key === `n${node.id}`) {
    box.node = node;
    box.around = node.parentList;
    box.title = node.kind === "op" && node.name ? `${node.name} = ${node.op}` : nameOf(node);
    box.small = node.kind === "module" ? plural(node.count || 0, "node") : [node.shape.length ? node.shape.join("×") : "scalar", node.dtype].filter(Boolean).join(" ");
  } else {
    const module = modules.get(node.parentList.find((id) => !open.has(id)));
    const ops = module.all.filter((each) => each.kind === "op").length;
    const parameters = module.all.filter((each) => each.kind === "parameter").length;
    box.module = module;
    box.around = module.parentList;
    box.title = module.label;
    box.small = plural(ops, "op") + (parameters ? `, ${plural(parameters, "parameter")}` : "");
  }
  return box;
}

const openAll = () => { for (const id of modules.keys()) open.add(id); };

const foldAll = () => open.clear();

// Open the modules around a node, so that its own box is drawn. Return whether anything changed.
function reveal(node) {
  const closed = node.parentList.filter((id) => !open.has(id));
  for (const id of closed) open.add(id);
  return closed.length > 0;
}
