/* Figures to explore: plain SVG in the page, driven by range inputs and keys; nothing is loaded from anywhere. */
(function () {
  "use strict";
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

  /* ---- (a) a front to explore ---- */
  function exploreFront(root, data) {
    let current = data.roles.knee;
    const P = data.archive;
    const holder = el(root, "div", {});
    const yMax = Math.ceil(10 * Math.max(...data.cloud.map((c) => c[1]))) / 10;
    const drawn = [];
    const redraw = plot(holder, "Front of " + data.title + ": every point is a candidate", 330, "MACs left (%)", data.error_name + " (%)", yMax, (svg, x, y) => {
      for (const c of data.cloud) el(svg, "circle", { cx: x(c[0]), cy: y(c[1]), r: 2, fill: "#bbb" });
      stairs(svg, x, y, P.map((p) => [p.left, p.error]), P.map((_, i) => i));
      drawn.length = 0;
      P.forEach((p, i) => {
        const role = Object.keys(data.roles).find((r) => data.roles[r] === i);
        const point = mark(svg, role ? SHAPE[role] : "circle", x(p.left), y(p.error), role ? 6 : 5, {
          fill: role ? COLOUR[role] : "#fff", stroke: "#222", role: "button", class: "dpes-point",
          "aria-label": `${role ? role + ", " : ""}error ${percent(p.error)}, ${percent(p.left)} of the MACs`,
        });
        point.addEventListener("pointerenter", () => select(i));
        point.addEventListener("focus", () => select(i));
        point.addEventListener("click", () => command(i));
        point.addEventListener("keydown", (event) => {
          const step = { ArrowRight: -1, ArrowUp: 1, ArrowLeft: 1, ArrowDown: -1 }[event.key];
          if (step) { event.preventDefault(); drawn[Math.min(P.length - 1, Math.max(0, i + step))].focus(); }
          if (event.key === "Enter" || event.key === " ") { event.preventDefault(); command(i); }
        });
        drawn.push(point);
      });
      for (const i of Object.values(data.roles)) svg.appendChild(drawn[i]); // on top of their neighbours
      paint();
    });
    const best = (budget) => P.reduce((a, p, i) => (p.left <= budget && (a < 0 || p.error < P[a].error) ? i : a), -1);
    const budget = slider(root, "Budget: MACs at most", { min: 0, max: 100, step: 1, value: Math.ceil(100 * P[current].left) },
      (v) => v + " %", (v) => { const i = best(v / 100); if (i < 0) told.textContent = "No candidate is as cheap as that."; else select(i); });
    budget.id = root.id + "-budget";
    const told = el(root, "p", { "aria-live": "polite", class: "dpes-told" });
    const bars = el(root, "div", {});
    const code = el(root, "pre", { class: "dpes-code", tabindex: 0, "aria-label": "Commands for the chosen candidate" });
    code.textContent = "Click a point, or press Enter on it: the commands that cut this network appear here.";

    function paint() {
      drawn.forEach((point, i) => {
        point.setAttribute("tabindex", i === current ? 0 : -1);
        point.setAttribute("stroke-width", i === current ? 4 : 1);
      });
      const p = P[current];
      told.textContent = `Error ${percent(p.error)} at ${percent(p.left)} of the MACs; generation ${p.generation}; ` +
        `${p.kept.reduce((a, b) => a + b)} of ${data.groups.reduce((a, g) => a + g[1], 0)} filters kept. Below, group by group:`;
      clear(bars);
      const width = bars.clientWidth || 600, h = 74, w = width / data.groups.length;
      const svg = el(bars, "svg", { width, height: h + 16, role: "img", "aria-label": "Share of filters kept in each coupled group: " +
        data.groups.map((g, k) => `${g[0]} ${p.kept[k]} of ${g[1]}`).join(", ") });
      data.groups.forEach((g, k) => {
        const bar = (share, attributes) => el(svg, "rect", { x: k * w + 1, width: Math.max(1, w - 2), y: h * (1 - share), height: h * share, ...attributes });
        bar(1, { fill: "#eee" });
        el(bar(p.kept[k] / g[1], { fill: COLOUR.heavy }), "title", {}, `${g[0]}: ${p.kept[k]} of ${g[1]} filters`);
      });
      el(svg, "text", { x: 0, y: h + 14 }, "input");
      el(svg, "text", { x: width, y: h + 14, "text-anchor": "end" }, "output");
    }
    function select(i) { current = i; paint(); }
    function command(i) { select(i); code.textContent = data.command.replace("ROW", P[i].row); }
    redraw();
  }

  /* ---- (b) a search, generation by generation ---- */
  function generations(root, data) {
    let now = data.generations.length - 1;
    const all = data.generations.map((g) => g.points);
    const holder = el(root, "div", {});
    const yMax = Math.ceil(10 * Math.max(...all.flat().map((c) => c[1]))) / 10;
    const redraw = plot(holder, "Candidates of " + data.title + " up to a generation", 300, "MACs left (%)", data.error_name + " (%)", yMax, (svg, x, y) => {
      const seen = all.slice(0, now + 1).flat();
      for (const c of all.slice(0, now).flat()) el(svg, "circle", { cx: x(c[0]), cy: y(c[1]), r: 2.5, fill: "#bbb" });
      for (const c of all[now]) el(svg, "circle", { cx: x(c[0]), cy: y(c[1]), r: 4, fill: COLOUR.heavy, "fill-opacity": 0.8 });
      stairs(svg, x, y, seen, front(seen));
    });
    const input = slider(root, "Generation", { min: 1, max: all.length, step: 1, value: now + 1 }, (v) => v + " of " + all.length,
      (v) => { now = v - 1; redraw(); details(); });
    input.id = root.id + "-generation";
    const told = el(root, "p", { "aria-live": "polite", class: "dpes-told" });
    const volume = el(root, "div", {}), heat = el(root, "div", {});
    function details() {
      const hv = data.generations.map((g) => g.hypervolume);
      told.textContent = `Hypervolume ${hv[now].toFixed(3)}; the candidates of this generation keep ` +
        `${percent(data.generations[now].kept, 0)} of the filters in the mean, ${percent(Math.min(...all[now].map((c) => c[0])), 0)} to ` +
        `${percent(Math.max(...all[now].map((c) => c[0])), 0)} of the MACs.`;
      const width = volume.clientWidth || 600, w = (width - 60) / all.length;
      clear(volume); clear(heat);
      const small = el(volume, "svg", { width, height: 70, role: "img", "aria-label": "Hypervolume after each generation: " + hv.map((v) => v.toFixed(3)).join(", ") });
      el(small, "text", { x: 0, y: 12 }, "hypervolume");
      hv.forEach((v, k) => el(small, "rect", { x: 60 + k * w + 1, width: w - 2, y: 66 - 48 * v / Math.max(...hv), height: 48 * v / Math.max(...hv), fill: k === now ? COLOUR.heavy : "#bbb" }));
      const rows = data.groups.length, h = Math.max(6, Math.min(14, 300 / rows));
      const map = el(heat, "svg", { width, height: rows * h + 40, role: "img",
        "aria-label": `Share of filters kept by the candidates of each generation, for ${rows} coupled groups` });
      el(map, "text", { x: 0, y: 12 }, "share of filters kept, white 100 %, dark 40 % or less");
      data.groups.forEach((g, r) => data.generations.forEach((generation, k) => {
        const share = generation.heat[r], grey = Math.round(255 * Math.max(0, Math.min(1, (share - 0.4) / 0.6)));
        const cell = el(map, "rect", { x: 60 + k * w, y: 20 + r * h, width: w - 1, height: h - 1, fill: `rgb(${grey},${Math.round(60 + grey * 0.76)},${Math.round(110 + grey * 0.57)})` });
        el(cell, "title", {}, `${g[0]}, generation ${k + 1}: ${percent(share, 0)} kept`);
      }));
      el(map, "text", { x: 0, y: 20 + h }, "input");
      el(map, "text", { x: 0, y: 20 + rows * h }, "output");
      el(map, "rect", { x: 60 + now * w - 1, y: 19, width: w + 1, height: rows * h + 1, fill: "none", stroke: "#b35900", "stroke-width": 2 });
      el(map, "text", { x: 60, y: 36 + rows * h }, "generation 1");
      el(map, "text", { x: width, y: 36 + rows * h, "text-anchor": "end" }, "generation " + all.length);
    }
    redraw(); details();
    let last = 0;
    new ResizeObserver(() => { if (heat.clientWidth !== last) { last = heat.clientWidth; details(); } }).observe(heat);
  }

  /* ---- (c) the strategy on a toy: p, the seed and the knee rule ---- */
  function random(seed) { // mulberry32
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
  function search(data, p, seed, rule) {
    const draw = random(1), n = data.layers * data.filters;
    const useful = Array.from({ length: n }, () => -Math.log(1 - draw()));
    const total = useful.reduce((a, b) => a + b);
    const next = random(1000 + seed);
    const judge = (g) => {
      let lost = 0, cost = 0, before = data.filters;
      for (let l = 0; l < data.layers; l++) {
        let kept = 0;
        for (let i = l * data.filters; i < (l + 1) * data.filters; i++) if (g[i]) kept++; else lost += useful[i];
        cost += kept * before; before = kept;
      }
      return [cost / (data.layers * data.filters ** 2), 0.07 + 0.83 * (1 - Math.exp(-4 * (lost / total) ** 1.5))];
    };
    let parents = [0, 1, 2].map(() => new Uint8Array(n).fill(1)), F = parents.map(judge), everyone = [], kept = [];
    for (let k = 0; k < data.generations; k++) {
      const children = Array.from({ length: data.population }, () => {
        const child = parents[Math.floor(3 * next())].slice();
        for (let i = 0; i < n; i++) if (next() < p) child[i] ^= 1;
        for (let l = 0; l < data.layers; l++) if (!child.subarray(l * data.filters, (l + 1) * data.filters).some(Boolean)) child[l * data.filters] = 1;
        return child;
      });
      const scores = children.map(judge);
      kept.push(children.reduce((a, c) => a + c.reduce((x, y) => x + y), 0) / (n * data.population));
      everyone = everyone.concat(scores);
      const pool = (k ? parents : []).concat(children), G = (k ? F : []).concat(scores), best = front(G);
      const chosen = [best[0], knee(G, best, rule), best[best.length - 1]];
      parents = chosen.map((i) => pool[i]); F = chosen.map((i) => G[i]);
    }
    return { everyone, F, kept };
  }
  function toy(root, data) {
    let p = 0.05, seed = 0, rule = "mmd", found;
    const holder = el(root, "div", {});
    const redraw = plot(holder, "A search on a toy problem", 320, "MACs left (%)", "made-up error (%)", 1, (svg, x, y) => {
      for (const c of found.everyone) el(svg, "circle", { cx: x(c[0]), cy: y(c[1]), r: 2.5, fill: "#bbb" });
      stairs(svg, x, y, found.everyone, front(found.everyone));
      ["heavy", "knee", "light"].forEach((role, k) => mark(svg, SHAPE[role], x(found.F[k][0]), y(found.F[k][1]), 6, { fill: COLOUR[role], stroke: "#222" }));
    });
    const again = () => {
      found = search(data, p, seed, rule);
      redraw();
      const places = ["heavy", "knee", "light"].map((r, k) => `${r} ${percent(found.F[k][0], 0)}`).join(", ");
      const alone = 0.5 + 0.5 * (1 - 2 * p) ** data.generations;
      told.textContent = `MACs left: ${places}. The last generation keeps ${percent(found.kept[data.generations - 1], 0)} of the filters ` +
        `(mutation alone would keep ${percent(alone, 0)}). Square: heavy, diamond: knee, circle: light.`;
    };
    const input = slider(root, "Mutation rate p", { min: 0.005, max: 0.3, step: 0.005, value: p }, (v) => v.toFixed(3), (v) => { p = v; again(); });
    input.id = root.id + "-p";
    slider(root, "Seed", { min: 0, max: 20, step: 1, value: 0 }, (v) => String(v), (v) => { seed = v; again(); });
    choice(root, "Knee rule", [["mmd", "Manhattan distance (MMD)"], ["win", "error weighs twice (WIN)"]], (v) => { rule = v; again(); });
    const told = el(root, "p", { "aria-live": "polite", class: "dpes-told" });
    again();
  }

  /* ---- (d) a front to drag ---- */
  function drag(root, data) {
    const points = data.points.map((p) => [p[1] / 100, p[0]]); // MACs (M) of 100, error
    const holder = el(root, "div", {});
    let scaleX, scaleY, focused = -1;
    const redraw = plot(holder, "Five networks; move them by mouse or arrow keys", 330, "MACs (M)", "error (%)", 0.6, (svg, x, y) => {
      scaleX = x; scaleY = y;
      const chosen = front(points), mmd = knee(points, chosen, "mmd"), win = knee(points, chosen, "win");
      stairs(svg, x, y, points, chosen);
      points.forEach((p, i) => {
        const on = chosen.includes(i);
        if (i === mmd) mark(svg, "diamond", x(p[0]), y(p[1]), 11, { fill: "none", stroke: COLOUR.knee, "stroke-width": 2.5 });
        if (i === win) mark(svg, "square", x(p[0]), y(p[1]), 14, { fill: "none", stroke: COLOUR.light, "stroke-width": 2.5 });
        const dot = mark(svg, "circle", x(p[0]), y(p[1]), 8, { fill: on ? COLOUR.heavy : "#999", stroke: "#222", tabindex: 0, role: "button", class: "dpes-point",
          "aria-label": `Point ${data.names[i]}: error ${percent(p[1])}, ${(100 * p[0]).toFixed(0)} million MACs${on ? "" : ", dominated"}. Arrow keys move it.` });
        el(svg, "text", { x: x(p[0]), y: y(p[1]) + 4, "text-anchor": "middle", class: "dpes-letter" }, data.names[i]);
        dot.addEventListener("pointerdown", (event) => { event.preventDefault(); focused = i; held = i; });
        dot.addEventListener("keydown", (event) => {
          const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 0.01], ArrowDown: [0, -0.01] }[event.key];
          if (step) { event.preventDefault(); focused = i; move(i, p[0] + step[0], p[1] + step[1]); }
        });
        if (i === focused) dot.focus({ preventScroll: true });
      });
      tell(chosen, mmd, win);
    });
    let held = -1;
    holder.addEventListener("pointermove", (event) => {
      if (held < 0) return;
      const box = holder.querySelector("svg").getBoundingClientRect();
      const at = (v, scale, most) => (v - scale(0)) / (scale(most) - scale(0)) * most;
      move(held, at(event.clientX - box.left, scaleX, 1), at(event.clientY - box.top, scaleY, 0.6));
    });
    window.addEventListener("pointerup", () => { held = -1; });
    const told = el(root, "p", { "aria-live": "polite", class: "dpes-told" });
    const table = el(root, "table", { class: "dpes-table" });
    function move(i, x, y) {
      points[i] = [Math.min(1, Math.max(0.01, x)), Math.min(0.6, Math.max(0.01, y))];
      redraw();
      focused = -1; // a redraw for another reason must not take the focus
    }
    function tell(chosen, mmd, win) {
      told.textContent = `Front: ${chosen.map((i) => data.names[i]).join(", ")}. Knee by MMD (diamond): ${data.names[mmd]}. Knee by WIN (square): ${data.names[win]}.`;
      clear(table);
      const head = el(el(table, "thead", {}), "tr", {}), body = el(table, "tbody", {});
      for (const t of ["", "error", "MACs (M)", "MMD", "WIN"]) el(head, t ? "th" : "td", t ? { scope: "col" } : {}, t);
      const scale = scaled(points, chosen);
      points.forEach((p, i) => {
        const row = el(body, "tr", {}), between = chosen.slice(1, -1).includes(i);
        el(row, "th", { scope: "row" }, data.names[i]);
        el(row, "td", {}, percent(p[1])); el(row, "td", {}, (100 * p[0]).toFixed(0));
        for (const rule of ["mmd", "win"]) el(row, "td", {}, between ? distance(scale(i), rule).toFixed(3) : chosen.includes(i) ? "boundary" : "dominated");
      });
    }
    redraw();
  }

  const KINDS = { front: exploreFront, generations, toy, drag };
  for (const root of document.querySelectorAll(".dpes-explore:not([data-ready])")) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    root.setAttribute("data-ready", "");
    KINDS[data.kind](root, data);
  }
})();
