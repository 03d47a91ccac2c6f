/* Figures of a run: its front, and its search generation by generation. */
/* ---- a front to explore ---- */
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

/* ---- a search, generation by generation ---- */
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
