// The layout of the whole picture: an open module is a frame with a layout of its own, and one item of the layout
// around it. A link that crosses a frame does so at a port, which is an item of the layout inside.

const PAD = 12, HEAD = 28;

// Place boxes, whose width and height are known. Return the frames, the points of each link, and the size.
function arrange(boxes, links) {
  const levels = new Map([[null, newLevel(null, [])]]);
  for (const box of boxes.values()) {
    box.around.forEach((id, i) => {
      if (levels.has(id)) return;
      levels.set(id, newLevel(modules.get(id), box.around.slice(0, i)));
      addItem(levels, i ? box.around[i - 1] : null, levels.get(id));
    });
    addItem(levels, box.around[box.around.length - 1] ?? null, box);
  }
  const ways = new Map();
  for (const link of links.values()) ways.set(link.key, addLink(levels, link));
  const inner = [...levels.values()].sort((a, b) => b.depth - a.depth);
  for (const level of inner) placeLevel(level);
  const root = levels.get(null);
  root.left = root.top = 0;
  for (const level of [...inner].reverse()) spread(level);
  return {
    frames: inner.filter((level) => level.module).reverse(), width: root.width, height: root.height,
    points: new Map([...ways].map(([key, way]) => [key, way.flatMap(absolute)])),
  };
}

function newLevel(module, outer) {
  const key = module ? `m${module.id}` : "root";
  return { key, module, depth: module ? outer.length + 1 : 0, items: new Map(), links: new Map(), rank: Infinity, ports: {} };
}

function addItem(levels, id, item) {
  levels.get(id).items.set(item.key, item);
  if (item.nodes) for (let at = id; levels.has(at); at = at === null ? undefined : modules.get(at).parent) {
    levels.get(at).rank = Math.min(levels.get(at).rank, item.rank);
  }
}

// Add a link to each level that it crosses. Return these pieces from its start to its end.
function addLink(levels, link) {
  const a = link.from.around, b = link.to.around;
  let common = 0;
  while (common < a.length && a[common] === b[common]) common += 1;
  const pieces = [];
  const outPort = `out ${link.from.key}`, inPort = `in ${link.from.key}`;
  for (let i = a.length - 1; i >= common; i -= 1) {
    const level = levels.get(a[i]);
    addPort(level, outPort, link.from.rank, "out");
    const from = i === a.length - 1 ? link.from.key : `m${a[i + 1]}`;
    pieces.push(piece(level, from, outPort, outPort, null, link));
  }
  const from = a.length > common ? `m${a[common]}` : link.from.key;
  const to = b.length > common ? `m${b[common]}` : link.to.key;
  pieces.push(piece(levels.get(common ? a[common - 1] : null), from, to, outPort, inPort, link));
  for (let i = common; i < b.length; i += 1) {
    const level = levels.get(b[i]);
    addPort(level, inPort, link.from.rank, "in");
    pieces.push(piece(level, inPort, i === b.length - 1 ? link.to.key : `m${b[i + 1]}`, null, inPort, link));
  }
  return pieces;
}

function addPort(level, key, rank, port) {
  if (!level.items.has(key)) level.items.set(key, { key, port, rank, width: 8, height: 0 });
}

function piece(level, from, to, outPort, inPort, link) {
  const key = `${from}>${to}>${link.from.key}`;
  if (!level.links.has(key)) level.links.set(key, { key, from, to, outPort, inPort, level });
  return level.links.get(key);
}

function placeLevel(level) {
  const items = [...level.items.values()], links = [...level.links.values()];
  for (const link of links) {
    link.fromX = portOffset(level.items.get(link.from), link.outPort);
    link.toX = portOffset(level.items.get(link.to), link.inPort);
  }
  const size = items.length ? layOut(items, links) : { width: 0, height: 0 };
  const label = level.module ? textWidth(level.module.label, true) + 46 : 0;
  level.inset = Math.max(0, (label - size.width) / 2) + (level.module ? PAD : 0);
  level.width = size.width + 2 * level.inset;
  const top = level.module ? HEAD : 0;
  level.height = size.height + top + (level.module ? PAD : 0);
}

function portOffset(item, port) {
  if (!item.items || !port || !item.items.has(port)) return 0;
  return item.items.get(port).x + item.inset - item.width / 2;
}

// Turn positions inside a level into positions in the picture.
function spread(level) {
  if (level.module) { level.left = level.at[0] - level.width / 2; level.top = level.at[1]; }
  const left = level.left + level.inset, top = level.top + (level.module ? HEAD : 0);
  for (const item of level.items.values()) item.at = [left + item.x, top + item.y];
  level.shift = [left, top];
}

function absolute(link) {
  const [left, top] = link.level.shift;
  return link.points.map(([x, y]) => [left + x, top + y]);
}

// Return the points of a link as the d of an SVG path: lines where it goes straight down, else smooth curves.
function smooth(points) {
  let d = `M${points[0].map(round1).join(" ")}`;
  for (let i = 1; i < points.length; i += 1) {
    const [x0, y0] = points[i - 1], [x1, y1] = points[i];
    if (x0 === x1 && y0 === y1) continue;
    if (Math.abs(x1 - x0) < 1 || y1 <= y0) d += `L${round1(x1)} ${round1(y1)}`;
    else {
      const middle = (y0 + y1) / 2;
      d += `C${round1(x0)} ${round1(middle)} ${round1(x1)} ${round1(middle)} ${round1(x1)} ${round1(y1)}`;
    }
  }
  return d;
}

const round1 = (value) => Math.round(value * 10) / 10;
