// A layered layout of one level: layers by longest path, order by barycentres, then positions by isotonic regression
// (Sugiyama, Tagawa and Toda 1981).
//
// Items are {key, width, height, rank, port}; port is "in", "out" or undefined. Links are {key, from, to, fromX, toX},
// where fromX and toX say where the line touches the items, from their middles.

const GAP_X = 22, GAP_Y = 34, GAP_PORT = 12, LONG = 60;

// Place items: set their x (middle) and y (top), and the points of each link. Return the size of the whole.
function layOut(items, links) {
  const state = { items: new Map(items.map((item) => [item.key, item])), layers: [], links };
  orientLinks(items, links, state);
  assignLayers(items, state);
  addBends(state);
  orderLayers(state);
  placeAcross(state);
  placeDown(state);
  return route(state);
}

// Sort the items so that links go forwards. Those of a cycle that cannot are marked as backward links.
function orientLinks(items, links, state) {
  const waiting = new Map(items.map((item) => [item.key, 0]));
  const outs = new Map(items.map((item) => [item.key, []]));
  for (const link of links) {
    waiting.set(link.to, waiting.get(link.to) + 1);
    outs.get(link.from).push(link);
  }
  const byRank = [...items].sort((a, b) => a.rank - b.rank);
  const ready = byRank.filter((item) => !waiting.get(item.key));
  const done = new Set(), order = [];
  let next = 0;
  while (order.length < items.length) {
    let item = ready.shift();
    if (!item) {
      while (done.has(byRank[next].key)) next += 1;
      item = byRank[next];
    }
    if (done.has(item.key)) continue;
    done.add(item.key);
    order.push(item);
    for (const link of outs.get(item.key)) {
      link.back = done.has(link.to);
      waiting.set(link.to, waiting.get(link.to) - 1);
      if (!link.back && waiting.get(link.to) === 0) ready.push(state.items.get(link.to));
    }
  }
  state.order = order;
  state.forward = links.filter((link) => !link.back);
}

function assignLayers(items, state) {
  const first = items.some((item) => item.port === "in") ? 1 : 0;
  const outs = new Map(items.map((item) => [item.key, []]));
  const ins = new Map(items.map((item) => [item.key, []]));
  for (const link of state.forward) { outs.get(link.from).push(link); ins.get(link.to).push(link); }
  for (const item of state.order) {
    item.layer = item.port === "in" ? 0 : first;
    for (const link of ins.get(item.key)) item.layer = Math.max(item.layer, state.items.get(link.from).layer + 1);
  }
  // A value without inputs stands just above its first use.
  for (const item of items) {
    item.source = !ins.get(item.key).length && !item.port;
    const uses = outs.get(item.key).map((link) => state.items.get(link.to).layer);
    if (item.source && uses.length) item.layer = Math.max(first, Math.min(...uses) - 1);
  }
  const deepest = Math.max(...items.map((item) => item.port === "out" ? 0 : item.layer));
  for (const item of items) if (item.port === "out") item.layer = Math.max(deepest + 1, item.layer);
  const used = [...new Set(items.map((item) => item.layer))].sort((a, b) => a - b);
  const dense = new Map(used.map((layer, i) => [layer, i]));
  for (const item of items) item.layer = dense.get(item.layer);
  state.layers = used.map(() => []);
  for (const item of state.order) state.layers[item.layer].push(item);
}

// Put bends where a link passes a layer. Links from the same place share their bends.
function addBends(state) {
  const chains = new Map();
  state.wires = [];
  for (const link of state.forward) {
    const from = state.items.get(link.from), to = state.items.get(link.to);
    link.bends = [];
    if (to.layer - from.layer > LONG) continue;
    const chainKey = `${link.from} ${link.fromX || 0}`;
    if (!chains.has(chainKey)) chains.set(chainKey, []);
    const chain = chains.get(chainKey);
    let above = { item: from, offset: link.fromX || 0 };
    for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
      const at = layer - from.layer - 1;
      if (!chain[at]) {
        chain[at] = { width: 6, height: 0, layer, bend: true, rank: from.rank };
        state.layers[layer].push(chain[at]);
        state.wires.push({ a: above.item, b: chain[at], aX: above.offset, bX: 0, weight: above.item.bend ? 6 : 2, light: from.source });
      }
      link.bends.push(chain[at]);
      above = { item: chain[at], offset: 0 };
    }
    const weight = above.item.bend ? 6 : to.port || from.port ? 3 : 2;
    // A value follows its use. The use does not follow the value, so that chains of ops stay straight.
    state.wires.push({ a: above.item, b: to, aX: above.offset, bX: link.toX || 0, weight, light: from.source });
  }
}

function orderLayers(state) {
  const { layers, wires } = state;
  for (const layer of layers) {
    for (const item of layer) Object.assign(item, { up: [], down: [] });
    layer.sort((a, b) => a.rank - b.rank);
  }
  for (const wire of wires) { wire.a.down.push(wire); wire.b.up.push(wire); }
  const number = (layer) => layer.forEach((item, i) => { item.place = i; });
  layers.forEach(number);
  const rounds = wires.length > 3000 ? 4 : 10;
  let best = null, fewest = Infinity;
  for (let round = 0; round < rounds && fewest > 0; round += 1) {
    const down = round % 2 === 0;
    for (const layer of down ? layers : [...layers].reverse()) {
      for (const item of layer) {
        const near = down ? item.up : item.down;
        const places = near.map((wire) => down ? wire.a.place + wire.aX / 1e4 : wire.b.place + wire.bX / 1e4);
        item.wish = places.length ? places.reduce((a, b) => a + b, 0) / places.length : item.place;
      }
      layer.sort((a, b) => a.wish - b.wish || a.place - b.place);
      number(layer);
    }
    const crossings = countCrossings(layers);
    if (crossings < fewest) { fewest = crossings; best = layers.map((layer) => [...layer]); }
  }
  if (best) state.layers = best;
  state.layers.forEach(number);
}

function countCrossings(layers) {
  let count = 0;
  for (const layer of layers) {
    const pairs = layer.flatMap((item) => item.down.map((wire) => [item.place, wire.b.place]));
    if (pairs.length > 600) continue;  // too many pairs to compare
    for (let i = 0; i < pairs.length; i += 1) {
      for (let j = 0; j < i; j += 1) if ((pairs[i][0] - pairs[j][0]) * (pairs[i][1] - pairs[j][1]) < 0) count += 1;
    }
  }
  return count;
}

// Choose x: each item goes to the mean of its neighbours, as far as the order and the widths of its layer allow.
function placeAcross(state) {
  for (const layer of state.layers) {
    let x = 0;
    for (const item of layer) { item.x = x + item.width / 2; x += item.width + GAP_X; }
    for (const item of layer) item.x -= x / 2;
  }
  const rounds = state.wires.length > 3000 ? 8 : 24;
  for (let round = 0; round < rounds; round += 1) {
    const down = round % 2 === 1;
    for (const layer of down ? state.layers : [...state.layers].reverse()) {
      for (const item of layer) {
        let total = 0, weight = 0;
        const pull = (wires, other, own, own2) => {
          for (const wire of wires) {
            const share = wire.light ? 0.001 : wire.weight;
            total += share * (wire[other].x + wire[own] - wire[own2]);
            weight += share;
          }
        };
        if (down || !item.down.length) pull(item.up, "a", "aX", "bX");
        if (!down || !item.up.length) pull(item.down, "b", "bX", "aX");
        item.wish = weight ? total / weight : item.x;
        item.pull = weight || 0.05;
      }
      separate(layer);
    }
  }
}

// Give the items of a layer the positions nearest to their wishes that keep their order and do not overlap.
function separate(layer) {
  const blocks = [];
  let offset = 0;
  layer.forEach((item, i) => {
    if (i) offset += (layer[i - 1].width + item.width) / 2 + (layer[i - 1].bend && item.bend ? 8 : GAP_X);
    blocks.push({ total: (item.wish - offset) * item.pull, pull: item.pull, items: [[item, offset]] });
    while (blocks.length > 1) {
      const last = blocks[blocks.length - 1], before = blocks[blocks.length - 2];
      if (before.total / before.pull <= last.total / last.pull) break;
      blocks.pop();
      before.total += last.total;
      before.pull += last.pull;
      before.items.push(...last.items);
    }
  });
  for (const block of blocks) {
    for (const [item, at] of block.items) item.x = block.total / block.pull + at;
  }
}

function placeDown(state) {
  let y = 0;
  state.tops = [];
  state.bottoms = [];
  state.layers.forEach((layer, i) => {
    const height = Math.max(...layer.map((item) => item.height));
    for (const item of layer) {
      item.y = item.port === "in" || item.bend ? y : item.source ? y + height - item.height : y + (height - item.height) / 2;
    }
    state.tops.push(y);
    state.bottoms.push(y + height);
    const plain = (items) => items && items.every((item) => item.port || item.bend);
    const near = plain(layer) || plain(state.layers[i + 1]);
    y += height + (i + 1 < state.layers.length ? (near ? GAP_PORT : GAP_Y) : 0);
  });
  state.height = y;
}

// Set the points of each link, move everything so that the left edge is at 0, and return the size.
function route(state) {
  const every = state.layers.flat();
  const left = Math.min(...every.map((item) => item.x - item.width / 2));
  for (const item of every) item.x -= left;
  let width = Math.max(...every.map((item) => item.x + item.width / 2));
  const back = state.links.filter((link) => link.back);
  back.forEach((link, i) => { link.side = width + 14 + 7 * Math.min(i, 6); });
  if (back.length) width += 22 + 7 * Math.min(back.length, 6);
  for (const link of state.links) {
    const from = state.items.get(link.from), to = state.items.get(link.to);
    const start = [from.x + (link.fromX || 0), from.y + from.height], end = [to.x + (link.toX || 0), to.y];
    if (link.back) {
      link.points = [start, [start[0], start[1] + 10], [link.side, start[1] + 10], [link.side, end[1] - 10],
        [end[0], end[1] - 10], end];
      continue;
    }
    link.points = [start, [start[0], state.bottoms[from.layer]]];
    for (const bend of link.bends) {
      link.points.push([bend.x, state.tops[bend.layer]], [bend.x, state.bottoms[bend.layer]]);
    }
    link.points.push([end[0], state.tops[to.layer]], end);
  }
  return { width, height: state.height };
}
