/* Sliders, axes, markers, fronts and knees: what all figures share. */
const SVG = "http://www.w3.org/2000/svg";
const COLOUR = { heavy: "#0173b2", knee: "#b35900", light: "#027a5b" };

function el(parent, tag, attributes, text) {
  const svg = ["svg", "g", "circle", "rect", "path", "line", "text", "title"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}
const percent = (v, digits = 1) => (100 * v).toFixed(digits) + " %";
const clear = (node) => { while (node.firstChild) node.removeChild(node.firstChild); };

/* A labelled range input; `show` turns its value into the text beside it. */
function slider(parent, label, range, show, change) {
  const box = el(parent, "label", { class: "dpes-row" });
  el(box, "span", {}, label + " ");
  const input = el(box, "input", { type: "range", ...range });
  const out = el(box, "output", {});
  const update = () => { out.textContent = show(+input.value); input.setAttribute("aria-valuetext", out.textContent); };
  input.addEventListener("input", () => { update(); change(+input.value); });
  update();
  return input;
}

function choice(parent, label, options, change) {
  const box = el(parent, "label", { class: "dpes-row" });
  el(box, "span", {}, label + " ");
  const select = el(box, "select", {});
  for (const [value, text] of options) el(select, "option", { value }, text);
  select.addEventListener("change", () => change(select.value));
  return select;
}

/* Axes for x, y in [0, 1] that are shown as percentages; redrawn whenever the width changes. */
function plot(parent, label, height, xName, yName, yMax, draw) {
  const svg = el(parent, "svg", { role: "group", "aria-label": label, class: "dpes-plot" });
  const m = { left: 46, right: 10, top: 8, bottom: 40 };
  const redraw = () => {
    const width = Math.max(260, parent.clientWidth || 600);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    clear(svg);
    const x = (v) => m.left + v * (width - m.left - m.right);
    const y = (v) => height - m.bottom - (v / yMax) * (height - m.top - m.bottom);
    for (let k = 0; k <= 5; k++) {
      const v = k / 5;
      el(svg, "line", { x1: x(v), x2: x(v), y1: y(0), y2: y(yMax), stroke: "#ddd" });
      el(svg, "text", { x: x(v), y: height - 22, "text-anchor": "middle" }, String(Math.round(100 * v)));
      el(svg, "line", { x1: x(0), x2: x(1), y1: y(v * yMax), y2: y(v * yMax), stroke: "#ddd" });
      el(svg, "text", { x: m.left - 6, y: y(v * yMax) + 4, "text-anchor": "end" }, String(+(100 * v * yMax).toFixed(1)));
    }
    el(svg, "text", { x: x(0.5), y: height - 5, "text-anchor": "middle" }, xName);
    const turned = `translate(12 ${y(yMax / 2)}) rotate(-90)`;
    el(svg, "text", { transform: turned, "text-anchor": "middle" }, yName);
    draw(svg, x, y);
  };
  let last = 0;
  new ResizeObserver(() => { if (parent.clientWidth !== last) { last = parent.clientWidth; redraw(); } }).observe(parent);
  return redraw;
}

function mark(svg, kind, x, y, size, attributes) {
  const s = size, d = {
    square: `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
    diamond: `M${x} ${y - 1.4 * s}L${x + 1.4 * s} ${y}L${x} ${y + 1.4 * s}L${x - 1.4 * s} ${y}z`,
    plus: `M${x - s} ${y}h${2 * s}M${x} ${y - s}v${2 * s}`,
  }[kind];
  return d ? el(svg, "path", { d, ...attributes }) : el(svg, "circle", { cx: x, cy: y, r: s, ...attributes });
}
const SHAPE = { heavy: "square", knee: "diamond", light: "circle" };

/* ---- domination, fronts and knees: objectives are pairs [cost, error], both minimised ---- */
function front(points) {
  const order = points.map((_, i) => i).sort((a, b) => points[a][1] - points[b][1] || points[a][0] - points[b][0]);
  const kept = [];
  let cheapest = Infinity;
  for (const i of order) if (points[i][0] < cheapest) { cheapest = points[i][0]; kept.push(i); }
  return kept; // by rising error
}
function scaled(points, chosen) {
  const lo = [0, 1].map((k) => Math.min(...chosen.map((i) => points[i][k])));
  const hi = [0, 1].map((k) => Math.max(...chosen.map((i) => points[i][k])));
  return (i) => [0, 1].map((k) => (hi[k] > lo[k] ? (points[i][k] - lo[k]) / (hi[k] - lo[k]) : 0));
}
const WEIGHTS = { mmd: [1, 1], win: [1 / 3, 2 / 3] };
const distance = (s, rule) => WEIGHTS[rule][0] * s[0] + WEIGHTS[rule][1] * s[1];
function knee(points, chosen, rule) {
  if (chosen.length < 3) return chosen[0];
  const scale = scaled(points, chosen);
  return chosen.slice(1, -1).reduce((a, b) => (distance(scale(b), rule) < distance(scale(a), rule) ? b : a));
}
function stairs(svg, x, y, points, chosen, attributes) {
  if (!chosen.length) return;
  let d = `M${x(points[chosen[0]][0])} ${y(points[chosen[0]][1])}`;
  for (const i of chosen.slice(1)) d += `V${y(points[i][1])}H${x(points[i][0])}`;
  el(svg, "path", { d, fill: "none", stroke: "#555", "stroke-width": 1.4, ...attributes });
}
