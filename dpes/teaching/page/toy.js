/* Figures without a run: the strategy on a toy, and a front to drag. */
/* ---- the strategy on a toy: p, the seed and the knee rule ---- */
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

/* ---- a front to drag ---- */
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
