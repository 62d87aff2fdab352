// Pan and zoom of the picture: wheel, drag, two fingers, keys.

const camera = { x: 0, y: 0, zoom: 1, width: 1, height: 1 };
const NEAREST = 3, FARTHEST = 0.02, READABLE = 0.7;

function applyCamera(animated = false) {
  const world = byId("world");
  if (!world) return;
  world.classList.toggle("moving", animated && !reducedMotion());
  world.style.transform = `translate(${camera.x}px, ${camera.y}px) scale(${camera.zoom})`;
  byId("picture").classList.toggle("far", camera.zoom < 0.4);
}

const viewport = () => byId("graph").getBoundingClientRect();

function zoomBy(factor, x, y) {
  const view = viewport();
  const cx = x === undefined ? view.width / 2 : x - view.left, cy = y === undefined ? view.height / 2 : y - view.top;
  const zoom = Math.min(NEAREST, Math.max(FARTHEST, camera.zoom * factor));
  camera.x = cx - (cx - camera.x) * zoom / camera.zoom;
  camera.y = cy - (cy - camera.y) * zoom / camera.zoom;
  camera.zoom = zoom;
  applyCamera();
}

function panBy(x, y) {
  camera.x += x;
  camera.y += y;
  applyCamera();
}

// Show the whole picture. At the start a large one is shown at a readable size from its top instead.
function fit(readable = false) {
  const view = viewport(), margin = 20;
  const whole = Math.min((view.width - 2 * margin) / camera.width, (view.height - 2 * margin) / camera.height, 1.15);
  camera.zoom = Math.max(FARTHEST, readable ? Math.max(whole, READABLE) : whole);
  camera.x = (view.width - camera.width * camera.zoom) / 2;
  camera.y = Math.max(margin, (view.height - camera.height * camera.zoom) / 2);
  applyCamera();
}

// Move the picture so that the rectangle at x, y (top left), in the picture's units, is in view.
function bringIntoView(x, y, width, height) {
  const view = viewport(), margin = 36;
  const left = camera.x + x * camera.zoom, top = camera.y + y * camera.zoom;
  const right = left + width * camera.zoom, bottom = top + height * camera.zoom;
  const edge = 12;
  const fits = left >= edge && top >= edge && right <= view.width - edge && bottom <= view.height - edge;
  if (fits || !view.width) return;
  camera.x += view.width / 2 - (left + right) / 2;
  camera.y += view.height / 2 - Math.min((top + bottom) / 2, top + view.height / 2 - margin);
  applyCamera(true);
}

function listenToPointers() {
  const picture = byId("picture");
  const down = new Map();
  let moved = 0;
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    const step = event.deltaMode === 1 ? 30 : 1;
    if (event.shiftKey) panBy(-event.deltaY * step, 0);
    else zoomBy(Math.exp(-Math.max(-60, Math.min(60, event.deltaY * step)) / 200), event.clientX, event.clientY);
  }, { passive: false });
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    down.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
  });
  addEventListener("pointermove", (event) => {
    if (!down.has(event.pointerId)) return;
    const before = down.get(event.pointerId), now = [event.clientX, event.clientY];
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    down.set(event.pointerId, now);
    if (moved < 4) return;
    picture.classList.add("dragging");
    if (down.size === 1) { panBy(now[0] - before[0], now[1] - before[1]); return; }
    const other = [...down].find(([id]) => id !== event.pointerId)[1];
    const distance = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    zoomBy(distance(now) / distance(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(name, (event) => {
      down.delete(event.pointerId);
      if (!down.size) picture.classList.remove("dragging");
    });
  }
  // A drag that ends on a box is not a click on it.
  picture.addEventListener("click", (event) => { if (moved >= 4) event.stopPropagation(); }, true);
}
