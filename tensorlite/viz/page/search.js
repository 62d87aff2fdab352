// Search by name: nodes and modules whose name, op or type has the text.

let matches = [], chosen = -1;

function findBoxes(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const has = (...words) => words.some((word) => String(word || "").toLowerCase().includes(wanted));
  const found = [];
  for (const module of modules.values()) {
    if (!module.part && has(module.name, module.type)) found.push({ module, text: module.name || module.label, kind: module.type || "module" });
  }
  for (const node of data.nodes) {
    if (has(nameOf(node), node.op)) found.push({ node, text: nameOf(node), kind: node.name && node.op ? node.op : node.kind });
  }
  const rank = (each) => each.text.toLowerCase() === wanted ? 0 : each.text.toLowerCase().startsWith(wanted) ? 1 : 2;
  return found.sort((a, b) => rank(a) - rank(b));
}

function showMatches() {
  const input = byId("search"), list = byId("found");
  matches = findBoxes(input.value);
  chosen = matches.length ? 0 : -1;
  const items = matches.slice(0, 30).map((each, i) => element("li", { id: `found${i}`, role: "option",
    onpointerdown: (event) => { event.preventDefault(); choose(i); } }, each.text, element("span", { class: "muted" }, ` ${each.kind}`)));
  if (input.value.trim() && !matches.length) items.push(element("li", { class: "muted" }, "Nothing has this name."));
  if (matches.length > 30) items.push(element("li", { class: "muted" }, `${matches.length - 30} more`));
  list.replaceChildren(...items);
  list.hidden = !items.length;
  input.setAttribute("aria-expanded", String(!list.hidden));
  mark();
}

function mark() {
  [...byId("found").children].forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
  if (chosen >= 0) byId("search").setAttribute("aria-activedescendant", `found${chosen}`);
  else byId("search").removeAttribute("aria-activedescendant");
  byId(`found${chosen}`)?.scrollIntoView({ block: "nearest" });
}

function hideMatches() {
  byId("found").hidden = true;
  byId("search").setAttribute("aria-expanded", "false");
}

function choose(i) {
  const match = matches[i];
  if (!match) return;
  hideMatches();
  if (match.node) selectNode(match.node, true);
  else selectModule(match.module, true);
}

function listenToSearch() {
  const input = byId("search");
  input.addEventListener("input", showMatches);
  input.addEventListener("blur", hideMatches);
  input.addEventListener("focus", () => { if (input.value) showMatches(); });
  input.addEventListener("keydown", (event) => {
    const shown = Math.min(matches.length, 30);
    if (event.key === "ArrowDown" && shown) chosen = (chosen + 1) % shown;
    else if (event.key === "ArrowUp" && shown) chosen = (chosen + shown - 1) % shown;
    else if (event.key === "Enter") choose(chosen);
    else if (event.key === "Escape") { input.value = ""; hideMatches(); }
    else return;
    event.preventDefault();
    mark();
  });
}
