// The sampling controls. The server describes each option; see gpt/serve/page_api.py.

import { byId, element } from "./dom.js";

const LENGTH = "max_tokens";
const rows = new Map();

/** Make a control for each option. fields: from the server. length: {default, most} of the number of tokens. */
export function makeControls(fields, length) {
  const tokens = {
    name: LENGTH, label: "Tokens", help: "How many tokens to write at most.", type: "int", default: length.default,
    minimum: 1, maximum: length.most,
  };
  const box = byId("controls");
  box.replaceChildren();
  for (const field of [tokens, ...fields]) {
    const made = makeRow(field);
    rows.set(field.name, made);
    box.append(made.box);
  }
  byId("reset").addEventListener("click", reset);
}

/** Set every option to its default. */
export function reset() {
  for (const { field, input, update } of rows.values()) {
    input.value = field.default ?? "";
    update();
  }
}

/** Return {max_tokens, sampling}, or null after it has shown what is wrong with a value. */
export function chosen() {
  const sampling = {};
  for (const [name, { field, input, update }] of rows) {
    update();
    if (!input.checkValidity()) {
      byId("settings").open = true;
      input.reportValidity();
      return null;
    }
    if (input.value !== "") sampling[name] = Number(input.value);
    else if (field.default !== null) sampling[name] = field.default;
  }
  const { [LENGTH]: max_tokens, ...rest } = sampling;
  return { max_tokens, sampling: rest };
}

function makeRow(field) {
  const id = `option-${field.name}`;
  const input = element("input", {
    id, name: field.name, type: "number", inputmode: field.type === "int" ? "numeric" : "decimal",
    step: field.type === "int" ? 1 : "any", min: field.minimum, max: field.maximum, autocomplete: "off",
    required: field.default !== null, placeholder: field.default === null ? "none" : null, value: field.default ?? "",
    "aria-describedby": `${id}-help`,
  });
  // A slider and a number are the same option. Only bounded options have a slider.
  const slider = hasSlider(field)
    ? element("input", {
      type: "range", min: field.minimum ?? 0, max: field.slider ?? field.maximum, step: 0.01, tabindex: -1,
      "aria-hidden": "true",
    })
    : null;
  const box = element("div", { class: "control" },
    element("label", { for: id, text: field.label }),
    input,
    slider,
    element("p", { class: "help", id: `${id}-help`, text: helpOf(field) }),
  );
  const update = () => {
    if (slider) slider.value = input.value === "" ? field.default : input.value;
    box.classList.toggle("changed", input.value !== String(field.default ?? ""));
    const { exclusive_minimum: bound } = field;
    const excluded = bound !== undefined && input.value !== "" && Number(input.value) <= bound;
    input.setCustomValidity(excluded ? `The value must be more than ${bound}.` : "");
  };
  input.addEventListener("input", update);
  slider?.addEventListener("input", () => {
    input.value = String(Number(slider.value));
    update();
  });
  update();
  return { field, box, input, update };
}

function hasSlider(field) {
  const bounded = field.minimum !== undefined && field.maximum !== undefined;
  return field.type === "float" && (bounded || field.slider !== undefined);
}

function helpOf(field) {
  const bounds = [];
  if (field.minimum !== undefined) bounds.push(`from ${field.minimum}`);
  if (field.exclusive_minimum !== undefined) bounds.push(`above ${field.exclusive_minimum}`);
  if (field.maximum !== undefined) bounds.push(`to ${field.maximum}`);
  const ends = bounds.length ? ` ${bounds.join(" ").replace(/^./, (letter) => letter.toUpperCase())}.` : "";
  return `${field.help}${ends}`;
}
