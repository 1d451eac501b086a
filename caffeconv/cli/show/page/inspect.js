"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const W = 216, GAP_X = 34, GAP_Y = 46, ROW = 17;
// a colour for each family of types; the first that fits counts
const FAMILIES = [[/loss|accuracy|softmax|argmax/i, "#35b36b"], [/prior|detection|roi|proposal|region|yolo|anchor|nms/i, "#d6497f"],
  [/data$|^input|image/i, "#35b36b"], [/deconv|upsample|interp|resize|unpool/i, "#7a6cff"], [/conv|local|im2col/i, "#4c8dff"],
  [/pool/i, "#20b2a6"], [/innerproduct|embed|lstm|rnn|gru|bilinear/i, "#b36bff"], [/norm|scale|bias|^bn|lrn|mvn/i, "#e0a52b"],
  [/relu|sigmoid|tanh|elu|swish|mish|power|exp|log|abs|bnll|clip|threshold|dropout|maxout/i, "#ef7d57"]];
const colour = (type) => (FAMILIES.find(([pattern]) => pattern.test(type)) || [0, "#8a94a6"])[1];
const STACKED = /^(BatchNorm|BN|Scale|Bias|ReLU6?|PReLU|ELU|Sigmoid|TanH|Swish|Mish|Dropout|Power|HardSwish|HardSigmoid|LRN)$/;
const layers = report.layers;
// layers that stand in one box anyway need no block
report.groups = report.groups.filter((group) => layers.slice(group.first + 1, group.last + 1).some((layer) => !STACKED.test(layer.type)));
const byName = new Map(layers.map((layer, i) => [layer.name, i]));
const open = new Set(report.groups.length > 6 && layers.length > 60 ? [] : report.groups.map((_, i) => i));
let chosen = -1, query = "", view = { x: 0, y: 0, k: 1 }, drawn = null;

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value); else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const by = (shape) => shape ? shape.join("×") || "scalar" : "?";
function short(n) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (n >= size) return +(n / size).toPrecision(3) + unit;
  return String(n);
}
const bytes = (n) => short(n).replace(/([kMGT]?)$/, " $1B");
const clip = (text, length) => text.length > length ? text.slice(0, length - 1) + "…" : text;

// ---- what is drawn: boxes of a layer with those that work in place on it, or a closed group of layers
function boxes() {
  const found = [], boxOf = new Array(layers.length);
  const groupOf = new Array(layers.length).fill(-1);
  report.groups.forEach((group, g) => { for (let i = group.first; i <= group.last; i++) groupOf[i] = g; });
  const maker = new Map(), readers = new Map();
  layers.forEach((layer) => layer.bottoms.filter((bottom) => layer.tops.every((top) => top.name !== bottom))
    .forEach((bottom) => readers.set(bottom, (readers.get(bottom) || 0) + 1)));
  layers.forEach((layer, i) => {
    const g = groupOf[i];
    let box;
    if (g >= 0 && !open.has(g)) {
      if (report.groups[g].first === i) found.push({ group: g, layers: [] });
      box = found[boxOf[report.groups[g].first] ?? found.length - 1];
    } else {
      const before = layer.bottoms.length === 1 ? maker.get(layer.bottoms[0]) : undefined;
      const inPlace = layer.tops.length === 1 && layer.bottoms[0] === layer.tops[0].name;
      const alone = STACKED.test(layer.type) && layer.tops.length === 1 && readers.get(layer.bottoms[0]) === 1;
      if ((inPlace || alone) && before !== undefined && found[before].group === undefined && found[before].open === g && (inPlace || found[before].layers.every((j) => layers[j].bottoms.length))) box = found[before];
      else { box = { layers: [], open: g }; found.push(box); }
    }
    boxOf[i] = found.indexOf(box);
    box.layers.push(i);
    layer.tops.forEach((top) => maker.set(top.name, boxOf[i]));
  });
  const edges = new Map(), shapes = new Map(), source = new Map();
  layers.forEach((layer, i) => {
    layer.bottoms.forEach((bottom) => {
      const from = source.get(bottom);
      if (from !== undefined && from !== boxOf[i]) {
        const key = from + ">" + boxOf[i];
        if (!edges.has(key)) edges.set(key, { from, to: boxOf[i], label: shapes.get(bottom) || "" });
      }
    });
    layer.tops.forEach((top) => { source.set(top.name, boxOf[i]); shapes.set(top.name, by(top.shape)); });
  });
  return { found, edges: [...edges.values()], boxOf };
}

// ---- layered drawing: ranks by longest path, long edges through empty places, order by the places of neighbours
function arrange({ found, edges, boxOf }) {
  const rank = found.map(() => 0);
  edges.slice().sort((a, b) => a.from - b.from).forEach((e) => { rank[e.to] = Math.max(rank[e.to], rank[e.from] + 1); });
  const places = found.map((box, i) => ({ box: i, rank: rank[i], up: [], down: [], w: W }));
  edges.forEach((edge) => {
    let last = edge.from;
    edge.path = [edge.from];
    for (let r = rank[edge.from] + 1; r < rank[edge.to]; r++) {
      places.push({ box: -1, rank: r, up: [last], down: [], w: 16 });
      places[last].down.push(places.length - 1);
      last = places.length - 1;
      edge.path.push(last);
    }
    places[last].down.push(edge.to); places[edge.to].up.push(last); edge.path.push(edge.to);
  });
  const rows = [];
  places.forEach((place, i) => { (rows[place.rank] ||= []).push(i); });
  const order = new Array(places.length).fill(0);
  const settle = (row) => row.forEach((p, i) => { order[p] = i; });
  rows.forEach(settle);
  const mean = (list, of) => list.length ? list.reduce((sum, p) => sum + of(p), 0) / list.length : null;
  for (let sweep = 0; sweep < 4; sweep++) {
    const side = sweep % 2 ? "down" : "up";
    (sweep % 2 ? rows.slice().reverse() : rows).forEach((row) => {
      const key = new Map(row.map((p) => [p, mean(places[p][side], (q) => order[q]) ?? order[p]]));
      row.sort((a, b) => key.get(a) - key.get(b) || a - b);
      settle(row);
    });
  }
  rows.forEach((row) => { let x = 0; row.forEach((p) => { places[p].x = x; x += places[p].w + GAP_X; }); });
  for (let sweep = 0; sweep < 8; sweep++) {
    const side = sweep % 2 ? "down" : "up";
    (sweep % 2 ? rows.slice().reverse() : rows).forEach((row) => {
      const middle = (p) => places[p].x + places[p].w / 2;
      const wish = row.map((p) => (mean(places[p][side], middle) ?? middle(p)) - places[p].w / 2);
      let shift = 0;
      row.forEach((p, i) => { const least = i ? places[row[i - 1]].x + places[row[i - 1]].w + GAP_X : -1e9; places[p].x = Math.max(wish[i], least); shift += wish[i] - places[p].x; });
      row.forEach((p) => { places[p].x += shift / row.length; });
    });
  }
  let y = 0;
  rows.forEach((row) => {
    const tallest = Math.max(...row.map((p) => places[p].box < 0 ? 0 : height(found[places[p].box])));
    row.forEach((p) => { places[p].y = y; places[p].h = places[p].box < 0 ? tallest : height(found[places[p].box]); places[p].row = tallest; });
    y += tallest + GAP_Y;
  });
  return { found, edges, boxOf, places };
}
const height = (box) => box.group !== undefined ? 48 : 42 + ROW * Math.min(box.layers.length - 1, 4);

// ---- drawing
function draw() {
  drawn = arrange(boxes());
  const root = $("world");
  root.replaceChildren();
  const labels = [];
  drawn.edges.forEach((edge) => {
    const points = edge.path.map((p, i) => { const q = drawn.places[p]; return { x: q.x + q.w / 2, top: q.y, bottom: q.y + (q.box < 0 ? q.row : q.h), end: i === edge.path.length - 1 }; });
    let d = `M${points[0].x},${points[0].bottom}`;
    for (let i = 1; i < points.length; i++) {
      const a = points[i - 1], b = points[i], m = (a.bottom + b.top) / 2;
      d += `C${a.x},${m} ${b.x},${m} ${b.x},${b.top}`;
      if (!b.end) d += `L${b.x},${b.bottom}`;
    }
    root.append(svg("path", { class: "edge", d, "marker-end": "url(#arrow)" }));
    // edges that pass other layers by have no room for a shape
    if (edge.path.length === 2) labels.push([edge, points[0], points[1]]);
  });
  labels.forEach(([edge, a, b]) => {
    const fork = drawn.edges.filter((other) => other.from === edge.from).length > 1;
    root.append(svg("text", { class: "shape", x: fork ? a.x * 0.15 + b.x * 0.85 : a.x * 0.7 + b.x * 0.3, y: fork ? b.top - 14 : a.bottom + 19 }, edge.label));
  });
  drawn.found.forEach((box, i) => root.append(node(box, i)));
  mark();
}
function node(box, index) {
  const place = drawn.places[index], h = place.h, first = layers[box.layers[0]];
  const bad = box.layers.some((i) => layers[i].problems.length);
  const name = box.group !== undefined ? report.groups[box.group].name : first.name;
  const group = svg("g", { class: `node${bad ? " bad" : ""}${box.group !== undefined ? " group" : ""}`, transform: `translate(${place.x},${place.y})`,
    tabindex: "0", role: "button", "aria-label": `${name}, ${box.group !== undefined ? box.layers.length + " layers" : first.type}`, "data-box": index });
  group.append(svg("title", {}, name), svg("rect", { width: W, height: h, rx: 9 }));
  if (box.group !== undefined) {
    group.append(svg("text", { x: 14, y: 20 }, "▸ " + clip(name, 24)), svg("text", { class: "type", x: 14, y: 37 }, `${box.layers.length} layers, ${short(sum(box.layers, "parameters"))} parameters`));
  } else {
    group.append(svg("rect", { class: "stripe", x: 0, y: 8, width: 4, height: h - 16, rx: 2, style: `fill:${colour(first.type)}` }));
    group.append(svg("text", { x: 14, y: 18 }, clip(first.name, 27)), svg("text", { class: "type", x: 14, y: 34 }, clip(first.summary, 33)));
    box.layers.slice(1, 5).forEach((i, at) => {
      const rest = box.layers.length - 5;
      const text = at === 3 && rest > 0 ? `+ ${rest + 1} more` : clip(`${layers[i].type}  ${layers[i].name}`, 33);
      group.append(svg("text", { class: "more", x: 14, y: 34 + ROW * (at + 1), "data-layer": i }, text));
    });
  }
  group.addEventListener("click", (event) => pick(box, Number(event.target.dataset.layer ?? -1)));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(box, -1); }
  });
  return group;
}
const sum = (indices, field) => indices.reduce((total, i) => total + layers[i][field], 0);
function pick(box, layer) {
  if (moved) return;
  if (box.group !== undefined) { open.add(box.group); draw(); choose(box.layers[0], true); } else choose(layer >= 0 ? layer : box.layers[0], false);
}
function mark() {
  const wanted = query.toLowerCase();
  document.querySelectorAll(".node").forEach((g) => {
    const box = drawn.found[Number(g.dataset.box)];
    const hit = wanted && box.layers.some((i) => matches(layers[i], wanted));
    g.classList.toggle("found", Boolean(hit));
    g.classList.toggle("dim", Boolean(wanted) && !hit);
    g.classList.toggle("chosen", box.layers.includes(chosen));
  });
  document.querySelectorAll("tbody tr").forEach((row) => {
    const layer = layers[Number(row.dataset.layer)];
    row.hidden = Boolean(wanted) && !matches(layer, wanted);
    row.classList.toggle("chosen", Number(row.dataset.layer) === chosen);
  });
}
const matches = (layer, wanted) => `${layer.name} ${layer.type} ${layer.tops.map((t) => t.name).join(" ")}`.toLowerCase().includes(wanted);

// ---- the view: pan, zoom
function apply() { $("world").setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.k})`); }
function bounds() {
  const xs = drawn.places.map((p) => p.x), ys = drawn.places.map((p) => p.y + p.h);
  return { x: Math.min(...xs), w: Math.max(...drawn.places.map((p) => p.x + p.w)) - Math.min(...xs), h: Math.max(...ys) };
}
function fit(whole) {
  const area = $("graph").getBoundingClientRect(), b = bounds(), tools = document.querySelector(".zoom");
  const first = drawn.places.filter((place) => place.rank === 0 && place.box >= 0);
  for (const room of [0, tools.offsetTop < 20 ? tools.offsetTop + tools.offsetHeight : 0]) {
    const k = Math.min(area.width / (b.w + 40), (area.height - room) / (b.h + 40), 1.1);
    view.k = whole ? k : Math.max(k, Math.min(0.8, area.width / (b.w + 40)), 0.6);
    // of what is wider than the window the beginning of the main path is in the middle
    const start = drawn.places.find((place) => place.box >= 0 && place.rank === 1) || first[0];
    const middle = b.w * view.k > area.width ? start.x + start.w / 2 : b.x + b.w / 2;
    view.x = area.width / 2 - middle * view.k;
    view.y = room + 20 * Math.min(1, view.k);
    // what is drawn first gives way to the buttons
    if (first.every((place) => view.x + (place.x + place.w) * view.k < tools.offsetLeft - 6)) break;
  }
  apply();
}
function zoom(factor, cx, cy) {
  const area = $("graph").getBoundingClientRect();
  const x = cx ?? area.width / 2, y = cy ?? area.height / 2, k = Math.min(4, Math.max(0.04, view.k * factor));
  view.x = x - (x - view.x) * k / view.k; view.y = y - (y - view.y) * k / view.k; view.k = k;
  apply();
}
function centre(index) {
  const place = drawn.places[drawn.boxOf[index]], area = $("graph").getBoundingClientRect();
  view.k = Math.max(view.k, 0.7);
  view.x = area.width / 2 - (place.x + W / 2) * view.k; view.y = area.height / 2 - (place.y + place.h / 2) * view.k;
  apply();
}
let moved = false;
const fingers = new Map();
$("graph").addEventListener("wheel", (e) => { e.preventDefault(); const r = $("graph").getBoundingClientRect(); zoom(Math.exp(-e.deltaY / 400), e.clientX - r.left, e.clientY - r.top); }, { passive: false });
$("graph").addEventListener("pointerdown", (e) => { fingers.set(e.pointerId, [e.clientX, e.clientY]); moved = false; });
addEventListener("pointermove", (e) => {
  const before = fingers.get(e.pointerId);
  if (!before) return;
  const dx = e.clientX - before[0], dy = e.clientY - before[1];
  if (Math.abs(dx) + Math.abs(dy) > 3) moved = true; else if (!moved) return;
  if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== e.pointerId)[1], r = $("graph").getBoundingClientRect();
    const old = Math.hypot(before[0] - other[0], before[1] - other[1]), now = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
    zoom(now / (old || 1), (e.clientX + other[0]) / 2 - r.left, (e.clientY + other[1]) / 2 - r.top);
  } else { view.x += dx; view.y += dy; apply(); }
  fingers.set(e.pointerId, [e.clientX, e.clientY]);
});
["pointerup", "pointercancel"].forEach((name) => addEventListener(name, (e) => { fingers.delete(e.pointerId); setTimeout(() => { moved = false; }, 0); }));

// ---- one layer
function choose(index, move) {
  chosen = index;
  const box = drawn.found[drawn.boxOf[index]];
  if (box.group !== undefined) { open.add(box.group); draw(); }
  mark();
  if (move) centre(index);
  const layer = layers[index], panel = $("details");
  const list = el("dl");
  const add = (what, text) => { if (text) list.append(el("dt", {}, what), el("dd", {}, text)); };
  add("type", layer.type);
  add("line", layer.line ? String(layer.line) : "");
  add("reads", layer.bottoms.join(", "));
  add("makes", layer.tops.map((top) => `${top.name} ${by(top.shape)}`).join(", "));
  add("settings", layer.settings);
  layer.formulas.forEach((formula, i) => add(layer.formulas.length === 2 ? ["height", "width"][i] : "size", formula));
  add("parameters", layer.parameters ? `${layer.parameters.toLocaleString()} (${layer.params.map((p) => `${p.name} ${by(p.shape)}`).join(", ")})` : "");
  add("multiply-adds", layer.multiply_adds ? short(layer.multiply_adds) : "");
  if (layer.built) add("memory", layer.activation_bytes ? bytes(layer.activation_bytes) : "in place");
  add("receptive field", layer.receptive_field ? `${by(layer.receptive_field.size)} pixels, ${by(layer.receptive_field.stride)} apart` : "");
  panel.replaceChildren(el("h2", {}, layer.name), ...layer.problems.map((p) => el("div", { class: "problem" }, el("div", {}, p.message), el("pre", {}, p.hint))), list,
    ...(layer.written ? [el("pre", {}, layer.written)] : []), ...(report.kernels.layer === layer.name ? [kernels()] : []), ...layer.histograms.map(histogram));
}
function histogram(h) {
  const most = Math.max(...h.counts, 1), chart = svg("svg", { class: "hist", viewBox: `0 0 ${h.counts.length * 8} 60`, preserveAspectRatio: "none", role: "img", "aria-label": `values of ${h.name}` });
  h.counts.forEach((n, i) => chart.append(svg("rect", { x: i * 8, y: 60 - 58 * n / most, width: 7, height: 58 * n / most, fill: "var(--accent)" })));
  return el("div", {}, el("div", { class: "hint" }, `${h.name}: ${h.low.toPrecision(3)} … ${h.high.toPrecision(3)}`), chart);
}

// ---- the table
const COLUMNS = [["layer", (l) => l.name], ["type", (l) => l.type], ["output", (l) => l.tops.map((t) => by(t.shape)).join(", ")],
  ["parameters", (l) => l.parameters, short], ["multiply-adds", (l) => l.multiply_adds, short], ["memory", (l) => l.activation_bytes, bytes],
  ["receptive field", (l) => l.receptive_field ? l.receptive_field.size[0] : 0, (n, l) => l.receptive_field ? by(l.receptive_field.size) : ""]];
let sorted = { column: -1, up: true };
function table() {
  const head = el("tr"), body = el("tbody");
  COLUMNS.forEach(([name, , number], c) => {
    const arrow = sorted.column === c ? (sorted.up ? " ▲" : " ▼") : "";
    head.append(el("th", { class: number ? "n" : "", "aria-sort": sorted.column !== c ? "none" : sorted.up ? "ascending" : "descending" },
      el("button", { onclick: () => { sorted = { column: c, up: sorted.column === c ? !sorted.up : !number }; table(); } }, name + arrow)));
  });
  const order = layers.map((_, i) => i);
  if (sorted.column >= 0) {
    const value = COLUMNS[sorted.column][1];
    order.sort((a, b) => { const x = value(layers[a]), y = value(layers[b]); return (x < y ? -1 : x > y ? 1 : 0) * (sorted.up ? 1 : -1) || a - b; });
  }
  const most = Math.max(...layers.map((l) => l.parameters), 1);
  order.forEach((i) => {
    const row = el("tr", { "data-layer": i, class: layers[i].problems.length ? "bad" : "", onclick: () => { choose(i, true); $("stage").scrollIntoView({ block: "nearest" }); } });
    COLUMNS.forEach(([name, value, number]) => {
      const raw = value(layers[i]), cell = el("td", { class: number ? "n" : "" }, number ? (raw ? number(raw, layers[i]) : "") : raw);
      if (name === "parameters" && raw) cell.prepend(el("span", { class: "bar", style: `width:${Math.max(2, 56 * raw / most)}px` }));
      row.append(cell);
    });
    body.append(row);
  });
  $("table").replaceChildren(el("thead", {}, head), body);
  mark();
}

// ---- the page
const MOST_OF_A_KIND = 3;
function problems() {
  const kinds = new Map();
  report.diagnostics.filter((d) => d.severity !== "note").forEach((d) => {
    const kind = d.severity + d.message.replace(/'[^']*'|\d+/g, "");
    kinds.set(kind, [...(kinds.get(kind) || []), d]);
  });
  $("problems").replaceChildren(...[...kinds.values()].flatMap((list) => {
    const rest = list.slice(MOST_OF_A_KIND).map(problem);
    const more = rest.length > 1 ? [el("details", {}, el("summary", {}, `… and ${rest.length} more of this kind`), ...rest)] : rest;
    return [...list.slice(0, MOST_OF_A_KIND).map(problem), ...more];
  }));
  if (!report.advice) return;
  const copy = el("button", { onclick: () => copied(report.fixed_text, copy) }, "copy the fix");
  $("problems").append(el("div", { class: "cures" }, ...(report.fixed_text ? [copy] : []), el("pre", {}, report.advice)));
}
function problem(d) {
  return el("div", { class: `problem ${d.severity}` },
    ...(byName.has(d.layer) ? [el("button", { onclick: () => choose(byName.get(d.layer), true) }, "show")] : []),
    el("b", {}, d.where), el("div", {}, d.message), el("pre", {}, d.hint));
}
// a page from a file may not have the clipboard: then the text is chosen and copied as by hand
function copied(text, button) {
  const area = el("textarea", { style: "position:fixed;opacity:0" });
  area.value = text;
  document.body.append(area);
  area.select();
  button.textContent = document.execCommand("copy") ? "copied" : "could not copy";
  area.remove();
}

// ---- nothing chosen yet
function overview() {
  const blobs = (what, shapes) => !Object.keys(shapes).length ? [] : [el("h3", {}, what), ...Object.entries(shapes).map(([name, shape]) => el("div", {}, `${name} ${by(shape)}`))];
  const best = (field, unit) => layers.map((layer, i) => [layer, i]).filter(([layer]) => layer[field]).sort((a, b) => b[0][field] - a[0][field]).slice(0, 5)
    .map(([layer, i]) => el("button", { class: "pick", onclick: () => choose(i, true) }, el("span", {}, layer.name), el("span", {}, short(layer[field]) + unit)));
  const costly = (title, list) => list.length ? [el("h3", {}, title), ...list] : [];
  $("details").replaceChildren(el("h2", {}, report.net || "net"), el("p", { class: "hint" }, "Click a box or a row of the table, or search. Keys: / searches, ↑ ↓ go from layer to layer, + − zoom, 0 shows the whole net."),
    ...blobs("inputs", report.inputs), ...blobs("outputs", report.outputs), ...costly("most multiply-adds", best("multiply_adds", "")),
    ...costly("most parameters", best("parameters", "")), ...(report.kernels.picture ? [kernels()] : []));
}
function kernels() {
  return el("div", {}, el("h3", {}, `kernels of ${report.kernels.layer}`), el("img", { src: report.kernels.picture, alt: `kernels of ${report.kernels.layer}` }));
}

// ---- the drawing as a file
function drawing() {
  const copy = $("graph").cloneNode(true), b = bounds(), style = getComputedStyle(document.documentElement);
  const colours = ["--bg", "--card", "--ink", "--soft", "--line", "--accent", "--bad", "--bad-bg", "--pill"].map((name) => `${name}:${style.getPropertyValue(name)}`).join(";");
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("viewBox", `${b.x - 20} -20 ${b.w + 40} ${b.h + 40}`);
  copy.setAttribute("width", b.w + 40); copy.setAttribute("height", b.h + 40);
  copy.setAttribute("style", `${colours};background:var(--card);font-family:system-ui,sans-serif`);
  copy.querySelector("#world").removeAttribute("transform");
  copy.prepend(svg("style", {}, document.querySelector("style").textContent.replace(/@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}/g, "").replace(/:root[^{]*\{[^}]*\}/g, "").replace(/#graph[^{]*\{[^}]*\}/g, "")));
  return { text: new XMLSerializer().serializeToString(copy), width: b.w + 40, height: b.h + 40 };
}
function save(blob, suffix) {
  const link = el("a", { href: URL.createObjectURL(blob), download: `${(report.net || "net").replace(/[^\w.-]+/g, "_")}.${suffix}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
$("svg").addEventListener("click", () => save(new Blob([drawing().text], { type: "image/svg+xml" }), "svg"));
$("png").addEventListener("click", () => {
  const { text, width, height: tall } = drawing(), image = new Image();
  const scale = Math.min(2, 16000 / Math.max(width, tall)), canvas = el("canvas", { width: Math.round(width * scale), height: Math.round(tall * scale) });
  image.onload = () => { canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height); canvas.toBlob((blob) => save(blob, "png")); };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
});
function header() {
  $("stats").replaceChildren(...[["layers", layers.length], ["parameters", short(report.parameters)], ["multiply-adds", short(report.multiply_adds)],
    ["activations", bytes(report.activation_bytes)], ["peak memory", bytes(report.peak_bytes)]].map(([what, n]) => el("span", {}, el("b", {}, String(n)), " " + what)));
}
$("search").addEventListener("input", (e) => {
  query = e.target.value.trim();
  const hit = query ? layers.findIndex((layer) => matches(layer, query.toLowerCase())) : -1;
  if (hit >= 0) choose(hit, true); else mark();
});
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
$("in").addEventListener("click", () => zoom(1.3));
$("out").addEventListener("click", () => zoom(1 / 1.3));
$("fit").addEventListener("click", () => fit(true));
$("fold").addEventListener("click", () => { if (open.size) open.clear(); else report.groups.forEach((_, i) => open.add(i)); draw(); fit(false); });
$("fold").hidden = !report.groups.length;
addEventListener("keydown", (e) => {
  if (e.target instanceof HTMLInputElement) { if (e.key === "Escape") { e.target.value = ""; query = ""; mark(); e.target.blur(); } return; }
  if (e.key === "/") { e.preventDefault(); $("search").focus(); }
  else if (e.key === "+") zoom(1.3); else if (e.key === "-") zoom(1 / 1.3); else if (e.key === "0") fit(true);
  else if (e.key === "ArrowDown" || e.key === "ArrowUp") {
    if (!document.activeElement || !document.activeElement.closest("#stage")) return;
    e.preventDefault();
    choose(Math.min(layers.length - 1, Math.max(0, chosen + (e.key === "ArrowDown" ? 1 : -1))), true);
  }
});
header(); problems(); overview(); draw(); table(); fit(false);
const start = layers.findIndex((layer) => layer.problems.length);
if (start >= 0) choose(start, true);
