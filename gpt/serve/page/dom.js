// Make elements. Texts are set as text, never as HTML, because models and users write them.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Return a new element.
 * properties: `text`, `class`, handlers such as `onclick`, and attributes, which true sets and false leaves out.
 */
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Return a new element of an SVG picture; see `element`. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.setAttribute("class", value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Return the red, green and blue (0 to 255) of a colour of the style sheet, such as "--accent". */
export function styleColor(name) {
  const probe = byId("color-probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
}

/** Return a function that calls `f` once after `milliseconds` without a further call. */
export function debounce(f, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...values), milliseconds);
  };
}

/** Return the bytes of a base64 text. */
export function fromBase64(text) {
  const binary = atob(text);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** Return a number with the separators of the reader's language. */
export function count(number) {
  return number.toLocaleString("en-US");
}
