// Loss curves as an SVG picture.

import { count, element, svg } from "./dom.js";

const HEIGHT = 320;
const MARGIN = { left: 52, right: 12, top: 12, bottom: 36 };

/**
 * Return a picture of curves.
 * curves: {label, color (a number from 0), dashed, points: [[step, value], ...]} each. width: in pixels.
 */
export function chart(curves, label, width) {
  const all = curves.flatMap(({ points }) => points);
  const [x, y] = [range(all.map(([step]) => step), true), range(all.map(([, value]) => value), false)];
  const left = (step) => MARGIN.left + ((step - x.low) / (x.high - x.low)) * (width - MARGIN.left - MARGIN.right);
  const top = (value) =>
    HEIGHT - MARGIN.bottom - ((value - y.low) / (y.high - y.low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label, class: "curves" });
  for (const value of y.ticks) {
    picture.append(
      svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: top(value), y2: top(value), class: "gridline" }),
      svg("text", { x: MARGIN.left - 8, y: top(value) + 4, "text-anchor": "end", text: String(value) }),
    );
  }
  for (const step of x.ticks) {
    const y = HEIGHT - MARGIN.bottom + 18;
    picture.append(svg("text", { x: left(step), y, "text-anchor": "middle", text: count(step) }));
  }
  picture.append(
    svg("text", { x: width - MARGIN.right, y: HEIGHT - 4, "text-anchor": "end", class: "axis-label", text: "step" }),
    svg("text", { x: MARGIN.left + 6, y: MARGIN.top + 6, class: "axis-label", text: "loss (nats per token)" }),
  );
  for (const { points, color, dashed } of curves) {
    const path = points
      .map(([step, value], i) => `${i ? "L" : "M"}${left(step).toFixed(1)} ${top(value).toFixed(1)}`)
      .join("");
    const kind = `curve c${color % 6}${dashed ? " dashed" : ""}`;
    picture.append(svg("path", { d: path, class: kind }));
    if (!dashed && points.length <= 60) {
      picture.append(...points.map(([step, value]) =>
        svg("circle", { cx: left(step), cy: top(value), r: 2.5, class: `dot c${color % 6}` },
          svg("title", { text: `step ${step}: ${value.toFixed(4)}` }))));
    }
  }
  return picture;
}

/** Return the legend of curves. */
export function legend(curves) {
  const entry = ({ label, color, dashed, points }) => element("li", {},
    svg("svg", { viewBox: "0 0 24 8", width: 24, height: 8, "aria-hidden": "true" },
      svg("path", { d: "M0 4H24", class: `curve c${color % 6}${dashed ? " dashed" : ""}` })),
    element("span", { text: `${label}: ${points.at(-1)[1].toFixed(4)} at step ${count(points.at(-1)[0])}` }));
  return element("ul", { class: "legend" }, ...curves.map(entry));
}

function range(values, fromZero) {
  let low = fromZero ? 0 : Math.min(...values);
  let high = Math.max(...values);
  if (high <= low) [low, high] = [low - (fromZero ? 0 : 0.5), low + (fromZero ? 1 : 0.5)];
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  if (!fromZero) [low, high] = [Math.floor(low / step) * step, Math.ceil(high / step) * step];
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const ticks = [];
  for (let tick = Math.ceil(low / step); tick * step <= high + step * 1e-6; tick += 1) {
    ticks.push(Number((tick * step).toFixed(digits)));
  }
  return { low, high, ticks };
}
