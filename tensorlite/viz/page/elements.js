// Elements of the page, and numbers as text. All strings become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Return an HTML element: element("p", {class: "note"}, "text", otherElement).
function element(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// Return an SVG element.
function shape(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const byId = (id) => document.getElementById(id);

const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Return a number with `digits` significant digits: 0.3333, 1.5e-7, 12345. Strings ("nan", "inf") stay.
function number(value, digits = 4) {
  if (value === null || value === undefined) return "unknown";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "number") return String(value);
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e6) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3
    ? value.toExponential(Math.max(0, digits - 2)).replace("e+", "e")
    : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
}

function bytes(count) {
  if (count === null || count === undefined) return "unknown size";
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  if (unit === 0 && count === 1) return "1 byte";
  return `${unit === 0 ? count : Number(count.toPrecision(3))} ${units[unit]}`;
}

function seconds(time) {
  if (time === null || time === undefined) return "not measured";
  const [factor, unit] = time < 1e-3 ? [1e6, "µs"] : time < 1 ? [1e3, "ms"] : [1, "s"];
  return `${Number((time * factor).toPrecision(3))} ${unit}`;
}

const percent = (share) => share > 0 && share < 0.01 ? "under 1%" : `${Math.round(share * 100)}%`;

// Return a shape as text: "2 × 3", "3 numbers", or "one number" for a shape without dimensions.
function dims(size) {
  if (size.length > 1) return size.join(" × ");
  return size.length ? plural(size[0], "number") : "one number";
}

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// Return words as a list in a sentence: "a", "a and b", "a, b and c". Of a long list, only the first ones are named.
function listed(words) {
  if (words.length > 8) return `${words.slice(0, 6).join(", ")} and ${words.length - 6} more`;
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}

const clip = (text, length) => text.length > length ? `${text.slice(0, length - 1)}…` : text;

// Show `text` next to the pointer while it is over `node`, and next to the node while it has the focus.
function tip(node, text) {
  const show = (event) => {
    const box = byId("tip");
    box.textContent = typeof text === "function" ? text(event) : text;
    box.hidden = !box.textContent;
    const around = node.getBoundingClientRect();
    const x = event.clientX === undefined ? around.left : event.clientX;
    const y = event.clientY === undefined ? around.bottom : event.clientY;
    const left = Math.max(4, Math.min(x + 12, innerWidth - box.offsetWidth - 6));
    const top = y + 18 + box.offsetHeight > innerHeight ? y - box.offsetHeight - 8 : y + 16;
    box.style.left = `${left}px`;
    box.style.top = `${Math.max(4, top)}px`;
  };
  const hide = () => { byId("tip").hidden = true; };
  node.addEventListener("pointermove", show);
  node.addEventListener("pointerleave", hide);
  node.addEventListener("focus", show);
  node.addEventListener("blur", hide);
  return node;
}
