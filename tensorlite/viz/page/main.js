// The state of the page, and what buttons and keys do.

let at = 0;  // the step
let selected = null;  // {node}, {module} or {link}
let tab = "step";
let focusKey = null;  // the box that the Tab key enters

function goTo(index) {
  stopPlaying();
  at = Math.max(0, Math.min(steps.length - 1, index));
  tab = "step";
  refresh();
  const { node } = steps[at];
  if (node) bringStepIntoView(node);
  byId("explain").scrollTop = 0;
  const box = node && drawn.boxes.get(boxKey(node));
  byId("live").textContent = stepTitle(at) + (box && box.module ? `, inside the folded module ${box.module.label}` : "");
}

function bringBoxIntoView(key) {
  const box = drawn.boxes.get(key), frame = drawn.frames.get(key);
  if (box) bringIntoView(box.at[0] - box.width / 2, box.at[1], box.width, box.height);
  else if (frame) bringIntoView(frame.left, frame.top, frame.width, frame.height);
}

// Move the op of the step into view, with its inputs if they fit.
function bringStepIntoView(node) {
  const now = drawn.boxes.get(boxKey(node));
  if (!now) return;
  const near = node.inputs.map((edge) => drawn.boxes.get(boxKey(nodes.get(edge.from)))).filter(Boolean);
  for (const boxes of [[now, ...near], [now]]) {
    const left = Math.min(...boxes.map((box) => box.at[0] - box.width / 2)), top = Math.min(...boxes.map((box) => box.at[1]));
    const right = Math.max(...boxes.map((box) => box.at[0] + box.width / 2));
    const bottom = Math.max(...boxes.map((box) => box.at[1] + box.height));
    const view = viewport();
    const fits = (right - left) * camera.zoom < view.width - 80 && (bottom - top) * camera.zoom < view.height - 80;
    if (!fits && boxes.length > 1) continue;
    bringIntoView(left, top, right - left, bottom - top);
    return;
  }
}

// Show the state: marks in the picture, the stepper, the panel.
function refresh() {
  const marks = stepMarks(at);
  marks.selected = selectedKey();
  markPicture(marks);
  drawOrigin(tab === "box" && selected && selected.node ? selected.node : steps[at].node);
  const slider = byId("slider");
  slider.value = at;
  slider.setAttribute("aria-valuetext", stepTitle(at));
  byId("where").textContent = stepTitle(at);
  byId("first").disabled = byId("previous").disabled = at === 0;
  byId("next").disabled = byId("last").disabled = at === steps.length - 1;
  byId("stepper").classList.toggle("backwards", marks.backwards);
  for (const [name, id] of [["step", "tab-step"], ["box", "tab-box"]]) {
    byId(id).setAttribute("aria-selected", String(tab === name));
    byId(id).tabIndex = tab === name ? 0 : -1;
  }
  byId("explain").setAttribute("aria-labelledby", `tab-${tab}`);
  byId("explain").replaceChildren(...fill(element("div"), {}, tab === "step" ? [explainStep(at)] : [explainSelected()]).childNodes);
}

function selectedKey() {
  if (!selected) return null;
  if (selected.node) return boxKey(selected.node);
  return selected.module ? `m${selected.module.id}` : null;
}

function explainSelected() {
  if (!selected) return [element("p", { class: "muted" }, "Click a box or an edge of the picture, or search for a name.")];
  if (selected.node) return explainNode(selected.node);
  return selected.module ? explainModule(selected.module) : explainLink(selected.link);
}

function select(what) {
  stopPlaying();
  selected = what;
  tab = "box";
  refresh();
  byId("explain").scrollTop = 0;
}

// Select a node. With `show`, open the modules around it and move it into view.
function selectNode(node, show = false) {
  if (show && reveal(node)) redraw();
  focusKey = boxKey(node);
  select({ node });
  if (show) bringBoxIntoView(focusKey);
}

function selectModule(module, show = false) {
  if (show) {
    const closed = module.parentList.filter((id) => !open.has(id));
    closed.forEach((id) => open.add(id));
    if (closed.length) redraw();
  }
  select({ module });
  if (show) bringBoxIntoView(`m${module.id}`);
}

function showNode(node) {
  if (reveal(node)) redraw();
  refresh();
  bringBoxIntoView(boxKey(node));
}

// Open or fold a module. Its corner stays where it is on the screen.
function toggleModule(id, focus = false) {
  const key = `m${id}`, before = cornerOf(key);
  if (open.has(id)) open.delete(id);
  else open.add(id);
  redraw();
  const after = cornerOf(key);
  if (before && after) panBy((before[0] - after[0]) * camera.zoom, (before[1] - after[1]) * camera.zoom);
  if (tab === "box" || !steps[at].node) select({ module: modules.get(id) });
  else refresh();
  focusKey = key;
  if (focus) focusBox(key);
}

function cornerOf(key) {
  const box = drawn.boxes.get(key), frame = drawn.frames.get(key);
  if (box) return [box.at[0] - box.width / 2, box.at[1]];
  return frame ? [frame.left, frame.top] : null;
}

function redraw() {
  drawPicture();
  if (!drawn.groups.has(focusKey)) focusKey = drawn.groups.keys().next().value;
  drawn.groups.get(focusKey)?.setAttribute("tabindex", "0");
}

function redrawAll(change) {
  change();
  redraw();
  refresh();
  fit(true);
  if (steps[at].node) bringBoxIntoView(boxKey(steps[at].node));
}

function focusBox(key) {
  const group = drawn.groups.get(key);
  if (!group) return;
  drawn.groups.get(focusKey)?.setAttribute("tabindex", "-1");
  focusKey = key;
  group.setAttribute("tabindex", "0");
  group.focus({ preventScroll: true });
  bringBoxIntoView(key);
}

// Click or Enter on a box: a module opens or folds, another box is selected.
function activate(key, focus) {
  const box = drawn.boxes.get(key);
  if (box && box.node) selectNode(box.node);
  else if (key.startsWith("m")) {
    const frame = drawn.frames.get(key);
    toggleModule((box || frame).module.id, focus);
  }
}

// Move the focus along an edge (up to the latest input, down to the first use), or else to the box before or after.
function moveFocus(key, down) {
  const linked = [...drawn.links.values()].filter((link) => (down ? link.from : link.to).key === key);
  const ends = linked.map((link) => down ? link.to : link.from).sort((a, b) => down ? a.rank - b.rank : b.rank - a.rank);
  if (ends.length) { focusBox(ends[0].key); return; }
  const keys = [...drawn.groups.keys()];
  const next = keys[keys.indexOf(key) + (down ? 1 : -1)];
  if (next) focusBox(next);
}

function listenToPicture() {
  const picture = byId("picture");
  picture.addEventListener("click", (event) => {
    const group = event.target.closest("[data-key]"), link = event.target.closest("[data-link]");
    if (group) activate(group.dataset.key, true);
    else if (link && drawn.links.has(link.dataset.link)) select({ link: drawn.links.get(link.dataset.link) });
  });
  picture.addEventListener("focusin", (event) => {
    const key = event.target.dataset && event.target.dataset.key;
    if (key) focusKey = key;
  });
  picture.addEventListener("keydown", (event) => {
    const group = event.target.closest("[data-key]");
    if (!group) return;
    const { key } = group.dataset;
    if (event.key === "Enter" || event.key === " ") activate(key, true);
    else if (event.key === "ArrowDown" && !event.shiftKey) moveFocus(key, true);
    else if (event.key === "ArrowUp" && !event.shiftKey) moveFocus(key, false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

const KEYS = {
  ArrowRight: ["next step", () => goTo(at + 1)], ArrowLeft: ["previous step", () => goTo(at - 1)],
  Home: ["first step", () => goTo(0)], End: ["last step", () => goTo(steps.length - 1)],
  "+": ["zoom in", () => zoomBy(1.25)], "-": ["zoom out", () => zoomBy(0.8)], 0: ["fit the picture", () => fit()],
  "/": ["search", () => byId("search").focus()], "?": ["this help", () => showHelp()],
};

const PANS = { ArrowRight: [-60, 0], ArrowLeft: [60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("legend").open) return;
    const { target } = event;
    if (target.closest("input:not([type=range]), textarea, select")) return;
    if (target.getAttribute("role") === "tab" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) return;
    if (event.shiftKey && PANS[event.key]) panBy(...PANS[event.key]);
    else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key][1]();
    else return;
    event.preventDefault();
  });
  byId("explain").parentNode.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    showTab(tab === "step" ? "box" : "step");
    byId(`tab-${tab}`).focus();
    event.preventDefault();
    event.stopPropagation();
  });
}

function showTab(name) {
  stopPlaying();
  tab = name;
  refresh();
}

// After a click with the mouse the arrow keys go through the steps again, not through the tabs.
function clickTab(name, event) {
  showTab(name);
  if (event.detail) event.target.blur();
}

function showHelp() {
  const names = { ArrowRight: "→", ArrowLeft: "←" };
  const rows = Object.entries(KEYS).map(([key, [words]]) => [names[key] || key, words]);
  rows.push(rows.shift());  // an object lists the key 0 first
  rows.push(["shift and arrows", "move the picture"], ["↑ ↓ on a box", "follow an edge"], ["Enter on a box", "open, fold or select"]);
  const close = element("button", { type: "button", onclick: () => byId("legend").close() }, "Close");
  byId("legend").replaceChildren(element("h2", {}, "Keys"), element("dl", {}, rows.map(([key, words]) => [
    element("dt", {}, element("kbd", {}, key)), element("dd", {}, words)])), element("h2", {}, "Colours"), legendOfBoxes(), legendOfMarks(), close);
  byId("legend").showModal();
}

// The theme is the system's until the button changes it. A page in a sandbox has no storage, and then forgets it.
function storedTheme(name) {
  try {
    if (name) localStorage.setItem("tensorlite-theme", name);
    return localStorage.getItem("tensorlite-theme");
  } catch {
    return null;
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Change to the ${name === "dark" ? "light" : "dark"} theme`);
  repaintValues();
}

function listenToButtons() {
  const buttons = {
    first: () => goTo(0), previous: () => goTo(at - 1), next: () => goTo(at + 1), last: () => goTo(steps.length - 1),
    "open-all": () => redrawAll(openAll), "fold-all": () => redrawAll(foldAll), "zoom-in": () => zoomBy(1.25),
    "zoom-out": () => zoomBy(0.8), fit: () => fit(), help: showHelp, "tab-step": (event) => clickTab("step", event),
    "tab-box": (event) => clickTab("box", event),
    theme: () => { setTheme(themeName() === "dark" ? "light" : "dark"); storedTheme(themeName()); },
  };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
  byId("slider").addEventListener("input", () => goTo(Number(byId("slider").value)));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => { if (!storedTheme()) setTheme(dark.matches ? "dark" : "light"); });
  setTheme(storedTheme() || (dark.matches ? "dark" : "light"));
}

function drawMarks() {
  const places = new Map();
  for (const { kind, index, text } of notable) {
    if (!places.has(index) && places.size > 200) continue;
    if (!places.has(index)) places.set(index, { kind, texts: new Set() });
    places.get(index).texts.add(text);
  }
  for (const [index, { kind, texts }] of places) {
    const words = [...texts].slice(0, 4).join(" ");
    const dot = tip(element("button", { type: "button", tabindex: -1, class: kind, "aria-label": words, onclick: () => goTo(index) }), words);
    dot.style.left = `${index / Math.max(1, steps.length - 1) * 100}%`;
    byId("marks").append(dot);
  }
  if (data.backward.length) {
    const share = (firstBackward - 0.5) / Math.max(1, steps.length - 1) * 100;
    const turn = element("i", { class: "turn" });
    const before = element("span", { class: "before" }, "forwards"), after = element("span", { class: "after" }, "backwards");
    turn.style.left = after.style.left = `${share}%`;
    before.style.right = `${100 - share}%`;
    byId("marks").append(turn, before, after);
  }
}

function start() {
  byId("title").textContent = data.title || "backward pass";
  byId("slider").max = steps.length - 1;
  for (const id of ["open-all", "fold-all"]) byId(id).hidden = !modules.size;
  openAtStart();
  listenToButtons();
  listenToPicture();
  listenToPointers();
  listenToKeys();
  listenToSearch();
  drawMarks();
  redraw();
  refresh();
  fit(true);
  let last = viewport();
  new ResizeObserver(() => {
    const now = viewport();
    if (Math.abs(now.width - last.width) > 40 || Math.abs(now.height - last.height) > 40) fit(true);
    last = now;
  }).observe(byId("graph"));
}

start();
