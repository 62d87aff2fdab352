// The graph as SVG: frames of open modules, links, boxes. It is drawn again when a module opens or folds.

const drawn = { boxes: new Map(), links: new Map(), frames: new Map(), groups: new Map(), paths: new Map() };
const BOX_HEIGHT = 46;
let measure = null;

function textWidth(text, bold) {
  measure ??= document.createElement("canvas").getContext("2d");
  measure.font = bold ? "600 13px system-ui, sans-serif" : "11.5px system-ui, sans-serif";
  return measure.measureText(text).width;
}

function drawPicture() {
  const { boxes, links } = visibleGraph();
  for (const box of boxes.values()) {
    box.title = clip(box.title, 34);
    box.width = Math.max(72, textWidth(box.title, true) + (box.module ? 50 : 26), textWidth(box.small, false) + 26);
    box.height = BOX_HEIGHT;
  }
  const { frames, points, width, height } = arrange(boxes, links);
  Object.assign(drawn, { boxes, links, frames: new Map(frames.map((frame) => [frame.key, frame])) });
  drawn.groups.clear();
  drawn.paths.clear();
  Object.assign(camera, { width: Math.max(1, width), height: Math.max(1, height) });
  const world = shape("g", { id: "world" },
    shape("g", {}, frames.map(drawFrame)),
    shape("g", {}, [...links.values()].map((link) => drawLink(link, points.get(link.key)))),
    shape("g", {}, frames.map(drawFrameLabel)),
    shape("g", { id: "origin" }),
    shape("g", {}, [...boxes.values()].map(drawBox)));
  byId("picture").replaceChildren(arrowheads(), world);
  byId("empty").hidden = boxes.size > 0;
  applyCamera();
}

function arrowheads() {
  const head = (id) => shape("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
    orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" }, shape("path", { d: "M0 .8 8 4 0 7.2z" }));
  return shape("defs", {}, head("arrow"), head("arrow-now"));
}

function drawFrame(frame) {
  return shape("rect", { class: `frame depth${frame.depth % 2}`, x: frame.left, y: frame.top, width: frame.width,
    height: frame.height, rx: 10 });
}

function drawFrameLabel(frame) {
  const text = clip(frame.module.label, 44);
  const group = shape("g", { class: "fold", role: "button", tabindex: -1, "data-key": frame.key, "aria-expanded": "true",
    "aria-label": `Fold module ${frame.module.label}`, transform: `translate(${round1(frame.left + 8)} ${round1(frame.top + 6)})` },
  shape("rect", { width: textWidth(text, true) + 28, height: 20, rx: 6 }),
  shape("text", { x: 9, y: 14.5, class: "sign" }, "−"),
  shape("text", { x: 23, y: 14.5, class: "label" }, text));
  drawn.groups.set(frame.key, group);
  return group;
}

function drawLink(link, points) {
  const checks = link.edges.map((edge) => edge.check).filter(Boolean);
  const wrong = checks.filter((check) => !check.ok && !check.why_not);
  const right = checks.filter((check) => check.ok);
  const state = wrong.length ? "wrong" : right.length ? "right" : "";
  const second = link.edges.every((edge) => nodes.get(edge.to).order > 1);
  const d = smooth(points);
  const line = shape("path", { d, class: "line", "marker-end": "url(#arrow)" });
  const group = shape("g", { class: `link ${state} ${second ? "second" : ""}`, "data-link": link.key, tabindex: -1 },
    line, shape("path", { d, class: "reach" }));
  const end = points[points.length - 1];
  const labels = [];
  if (link.edges.length > 1) labels.push(`${link.edges.length} edges`);
  if (wrong.length) labels.push("✗ differs");
  else if (right.length) {
    group.append(shape("text", { x: points[0][0] + 5, y: points[0][1] + 13, class: "count" }, "✓"));
  }
  if (labels.length) group.append(shape("text", { x: end[0] + (points[0][0] > end[0] + 1 ? -6 : 6), y: end[1] - 9, class: "count",
    "text-anchor": points[0][0] > end[0] + 1 ? "end" : "start" }, labels.join(" ")));
  tip(group, linkWords(link, right.length, wrong.length));
  drawn.paths.set(link.key, group);
  return group;
}

function linkWords(link, right, wrong) {
  const [edge] = link.edges;
  const source = nodes.get(edge.from);
  const words = link.edges.length > 1
    ? `${link.edges.length} edges from ${link.from.title} to ${link.to.title}.`
    : `${shortName(source)} (${dims(source.shape)}) is argument ${edge.argument || edge.position} of ${nameOf(nodes.get(edge.to))}.`;
  if (wrong) return `${words} The gradient differs from finite differences.`;
  return right ? `${words} Finite differences agree with the gradient.` : words;
}

function drawBox(box) {
  const { node, module } = box;
  const kind = module ? "module" : KINDS[node.kind] || "op";
  const second = box.nodes.every((each) => each.order > 1);
  const label = module ? `Open module ${module.label}: ${box.small}` : describe(node);
  const group = shape("g", { class: `box ${kind} ${second ? "second" : ""} ${node && node.root ? "root" : ""}`,
    role: "button", tabindex: -1, "data-key": box.key, "aria-label": label, "aria-expanded": module ? "false" : null,
    transform: `translate(${round1(box.at[0] - box.width / 2)} ${round1(box.at[1])})` },
  module && shape("rect", { class: "stack", x: 4, y: 4, width: round1(box.width), height: box.height, rx: 9 }),
  shape("rect", { class: "face", width: round1(box.width), height: box.height, rx: kind === "op" ? 7 : 9 }),
  shape("text", { class: "title", x: 13, y: 20 }, box.title),
  shape("text", { class: "small", x: 13, y: 36 }, box.small),
  module && shape("text", { class: "sign", x: round1(box.width - 20), y: 21 }, "+"));
  drawn.groups.set(box.key, group);
  return tip(group, () => node && node.line ? `${label}. ${node.line}` : label);
}

// Mark boxes and links with what the step does. `marks` has sets of keys: now, done, waiting, near, and of links.
function markPicture(marks) {
  for (const [key, group] of drawn.groups) {
    group.classList.toggle("now", marks.now === key);
    group.classList.toggle("done", marks.done.has(key));
    group.classList.toggle("waiting", marks.waiting.has(key));
    group.classList.toggle("selected", marks.selected === key);
    group.classList.toggle("near", marks.near.has(key));
  }
  for (const [key, group] of drawn.paths) {
    const flow = marks.flow.get(key) || "";
    group.classList.toggle("flows", Boolean(flow));
    const line = group.firstChild;
    line.setAttribute("marker-end", flow === "down" ? "url(#arrow-now)" : flow === "up" ? "none" : "url(#arrow)");
    line.setAttribute("marker-start", flow === "up" ? "url(#arrow-now)" : "none");
  }
  byId("picture").classList.toggle("backwards", Boolean(marks.backwards));
}

// Draw a line from a node of the second order to the op whose rule made it.
function drawOrigin(node) {
  const place = byId("origin");
  if (!place) return;
  place.replaceChildren();
  const own = node && drawn.boxes.get(boxKey(node));
  const maker = node && nodes.has(node.of) && drawn.boxes.get(boxKey(nodes.get(node.of)));
  if (!own || !maker || own === maker) return;
  const [x0, y0] = own.at, [x1, y1] = maker.at;
  place.append(shape("path", { class: "origin",
    d: `M${x0} ${y0 + own.height / 2}Q${(x0 + x1) / 2 + 60} ${(y0 + y1) / 2} ${x1} ${y1 + maker.height / 2}` }));
}
