"use strict";
(() => {
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const NUMBERS = ["score", "score_low", "score_high", "n", "effect", "effect_low", "effect_high", "effect_n", "p", "p_adjusted"];
const DASH = { k: "7 4", v: "2 3.5" }, PORT = { q: "queries", k: "keys", v: "values", mlp: "MLP", end: "end" };
const DRAWN = 2500, FIRST = 300, LISTED = 40, FAR = 7;
const index = new Map(data.rooms.map((room, i) => [room.name, i]));
const groups = new Map();  // a head's room to the key-value room that serves it
data.rooms.forEach((room, i) => room.heads.forEach(head => groups.set(index.get(head), i)));
const names = Object.keys(data.circuits);
const state = { circuit: names[0], other: "", weight: "score", plan: "close", zoom: 0, open: null, ports: new Set(Object.keys(PORT)) };
let drawn = [], paths = new Map(), at = null, root = null, roving = null;

// Elements are made with text, never with markup.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "text", "title"].includes(tag);
  const out = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes))
    if (key.startsWith("on")) out.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) out.setAttribute(key, value === true ? "" : value);
  out.append(...children.filter(child => child !== null));
  return out;
}
const digits = value => value === null || value === undefined ? "" : Number(value.toPrecision(3)).toString().replace("-", "−");
const count = value => value.toLocaleString("en");
function within(value, low, high) {
  if (value === null || value === undefined) return "";
  return digits(value) + (low === null || low === undefined ? "" : ` [${digits(low)}, ${digits(high)}]`);
}
const unit = () => data.circuits[state.circuit].meta.unit || "";
const label = room => room.kind === "end" ? `end (${data.end})` : room.name;
const brief = room => {
  const text = room.kind === "end" ? data.end : room.name.replace(".mlp", ".MLP");
  const most = room.kind === "end" ? 14 : 9;
  return text.length > most ? text.slice(0, most - 1) + "…" : text;
};

// 1. Edges of a circuit as rows, made once.
const made = new Map();
function rowsOf(name) {
  if (made.has(name)) return made.get(name);
  const edges = data.circuits[name].edges;
  const rows = edges.from.map((from, i) => {
    const row = { from, to: edges.to[i], port: edges.port[i] };
    for (const number of NUMBERS) row[number] = edges[number][i];
    row.key = `${from}>${row.to}>${row.port}`;
    return row;
  });
  made.set(name, rows);
  return rows;
}
function candidates() {
  const mine = rowsOf(state.circuit), weight = state.weight;
  const sized = (row, side) => ({ ...row, side, size: Math.abs(row[weight] ?? NaN) });
  if (!state.other) return mine.map(row => sized(row, row[weight] >= 0 ? "up" : "down"));
  const theirs = new Map(rowsOf(state.other).map(row => [row.key, row]));
  const out = mine.map(row => {
    const twin = theirs.get(row.key);
    theirs.delete(row.key);
    if (!twin) return sized(row, "up");
    const size = Math.max(Math.abs(row[weight] ?? NaN), Math.abs(twin[weight] ?? NaN));
    return { ...row, twin, side: "both", size };
  });
  return [...out, ...[...theirs.values()].map(row => ({ ...sized(row, "down"), foreign: true }))];
}

// 2. Which of them are shown: of the ports chosen, so many of the largest.
function chosen() {
  const all = candidates(), measured = all.filter(row => Number.isFinite(row.size));
  const eligible = measured.filter(row => state.ports.has(row.port)).sort((a, b) => b.size - a.size);
  const kept = eligible.slice(0, kept_of(eligible.length));
  return { all, measured, eligible, kept };
}
const kept_of = n => n ? Math.max(1, Math.round(n ** (Number($("keep").value) / 1000))) : 0;
function slider(k, n) { $("keep").value = n > 1 ? Math.ceil(1000 * Math.log(Math.min(k, n)) / Math.log(n)) : 1000; }

function say({ all, measured, eligible, kept }) {
  const circuit = data.circuits[state.circuit], sum = rows => rows.reduce((total, row) => total + row.size, 0);
  const what = state.weight === "score" ? "|score|" : "|effect|";
  const parts = [];
  if (state.other) {
    const shared = kept.filter(row => row.side === "both").length;
    const mine = all.filter(row => !row.foreign).length, both = all.filter(row => row.side === "both").length;
    parts.push(`${count(kept.length)} of ${count(all.length)} edges of either circuit are kept; ${count(shared)} of them are in both.`,
      `In all: ${count(both)} shared, ${count(mine - both)} only in ${state.circuit}, ${count(all.length - mine)} only in ${state.other} (Jaccard ${digits(all.length ? both / all.length : 0)}).`);
  } else {
    const total = circuit.totals[state.weight];
    if (!kept.length) parts.push(circuit.n_edges ? `No edge of ${count(circuit.n_edges)} is shown.` : "This circuit has nodes and no edges.");
    else parts.push(`${count(kept.length)} of ${count(circuit.n_edges)} edges kept: ${what} ≥ ${digits(kept[kept.length - 1].size)} ${unit()}, ${total ? (100 * sum(kept) / total).toFixed(0) : 0}% of the circuit's total ${what}.`);
    if (circuit.n_edges > all.length) parts.push(`The ${count(circuit.n_edges - all.length)} smallest edges are not in this page.`);
  }
  if (measured.length < all.length) parts.push(`${count(all.length - measured.length)} edges have no ${state.weight === "score" ? "score" : "exact effect"} and are hidden.`);
  if (eligible.length < measured.length) parts.push(`${count(measured.length - eligible.length)} are switched off.`);
  if (kept.length > DRAWN) parts.push(`Drawn are the ${count(DRAWN)} largest; ${count(kept.length - DRAWN)} more are hidden.`);
  $("kept").textContent = parts.join(" ");
}

// 3. Drawing. Python's drawing has the same curve.
function bend(row) {
  const [ax, ay, aw] = at.boxes[row.from], [bx, by, bw, bh] = at.boxes[row.to];
  const x = ax + aw / 2, y = ay, to = bx + bw * data.entries[row.port], end = by + bh, rise = y - end;
  const reach = Math.max(rise * 0.4, 12), upright = Math.max(0, 1 - Math.abs(to - x) / 140);
  const bow = (rise > 50 ? Math.min(16 + 0.12 * rise, 110) * upright : 0) * (x + to >= at.width ? 1 : -1);
  return [x, y, x + bow, y - reach, to + bow, end + reach, to, end];
}
function sampled(p) {
  const out = new Float32Array(50);
  for (let i = 0; i < 25; i++) {
    const t = i / 24, s = 1 - t, a = s * s * s, b = 3 * s * s * t, c = 3 * s * t * t, d = t * t * t;
    out[2 * i] = a * p[0] + b * p[2] + c * p[4] + d * p[6];
    out[2 * i + 1] = a * p[1] + b * p[3] + c * p[5] + d * p[7];
  }
  return out;
}
function on() {
  const out = new Set([index.get("embedding"), index.get("end")]);
  for (const row of drawn) out.add(row.from), out.add(row.to);
  for (const name of [state.circuit, state.other].filter(Boolean)) for (const i of Object.keys(data.circuits[name].nodes))
    if (["neuron", "feature"].includes(data.rooms[i].kind) || !data.circuits[name].n_edges) out.add(Number(i));
  return out;
}
function draw() {
  hide();
  const picked = chosen();
  say(picked);
  at = data.plans[state.plan];
  drawn = picked.kept.slice(0, DRAWN);
  const largest = drawn.length ? drawn[0].size || 1 : 1, lit = on(), before = root;
  root = make("svg", { viewBox: `0 0 ${at.width} ${at.height}`, id: "picture", class: "drawing" });
  for (const [layer, y] of at.floors)
    root.append(make("g", { class: "floor" }, make("path", { d: `M8 ${y + 5}H${at.width - 8}` }), make("text", { x: 10, y: y - 4 }, `L${layer}`)));
  const lines = make("g", { id: "edges" });
  paths = new Map();
  for (let i = drawn.length - 1; i >= 0; i--) {
    const row = drawn[i], p = bend(row), f = p.map(value => value.toFixed(1));
    row.points = sampled(p);
    row.thick = 0.7 + 6.3 * row.size / largest;
    const path = make("path", { class: "edge", d: `M${f[0]} ${f[1]}C${f.slice(2, 4).join(" ")} ${f.slice(4, 6).join(" ")} ${f.slice(6).join(" ")}`,
      stroke: data.colours[row.side], "stroke-width": row.thick.toFixed(2), "stroke-dasharray": DASH[row.port] });
    paths.set(row.key, path);
    lines.append(path);
  }
  root.append(lines);
  at.boxes.forEach((box, i) => { if (box) root.append(room(box, i, lit.has(i))); });
  if (before) before.replaceWith(root); else $("stage").append(root);
  root.addEventListener("mousemove", moved);
  root.addEventListener("mouseleave", hide);
  root.addEventListener("click", clicked);
  root.addEventListener("focusin", event => { const i = roomAt(event.target); if (i !== null) rove(i), roomTip(i, event.target.getBoundingClientRect()); });
  root.addEventListener("focusout", hide);
  root.addEventListener("keydown", pressed);
  rove(roving !== null && at.boxes[roving] ? roving : index.get("end"));
  mark();
  size();
  legend();
}
function room([x, y, w, h], i, lit) {
  const one = data.rooms[i], words = one.kind === "kv" ? ["k", "v"].map(port => [x + w * data.entries[port], 2.6, port]) : [[x + w / 2, 3.8, brief(one)]];
  return make("g", { class: `room ${one.kind}${lit ? "" : " off"}`, "data-room": i, tabindex: -1, role: "button", "aria-label": label(one) },
    make("rect", { x, y, width: w, height: h, rx: ["mlp", "embedding", "end"].includes(one.kind) ? 9 : 3 }),
    ...words.map(([left, down, text]) => make("text", { x: left, y: y + h / 2 + down }, text)));
}
function size() {
  const stage = $("stage"), wide = (stage.clientWidth - 18) / at.width;
  const zoom = state.zoom || Math.min(1.25, Math.max(0.62, wide));
  root.setAttribute("width", at.width * zoom);
  root.setAttribute("height", at.height * zoom);
  return zoom;
}
function zoomTo(zoom) {
  const stage = $("stage"), middle = [(stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth, (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight];
  state.zoom = Math.min(4, Math.max(0.1, zoom));
  size();
  stage.scrollTo(middle[0] * stage.scrollWidth - stage.clientWidth / 2, middle[1] * stage.scrollHeight - stage.clientHeight / 2);
}
function legend() {
  const line = (colour, dash) => make("svg", { width: 30, height: 8, "aria-hidden": "true" }, make("path", { d: "M0 4H30", stroke: colour, "stroke-width": 3, "stroke-dasharray": dash, fill: "none" }));
  const named = state.other ? [["up", `only ${state.circuit}`], ["down", `only ${state.other}`], ["both", "in both"]] : [["up", "supports the metric"], ["down", "opposes it"]];
  const dashed = [[null, "into queries, MLPs, the end"], [DASH.k, "into keys"], [DASH.v, "into values"]];
  $("legend").replaceChildren(...named.map(([side, text]) => make("span", {}, line(data.colours[side]), text)),
    ...dashed.map(([dash, text]) => make("span", {}, line("var(--soft)", dash), text)), make("span", {}, `Width by ${state.weight === "score" ? "estimated |score|" : "exact |effect|"}, intervals at 95%`));
}

// 4. Hovering: the nearest edge of those drawn, or the room under the pointer.
const roomAt = target => { const found = target.closest && target.closest(".room"); return found ? Number(found.dataset.room) : null; };
function nearest(event) {
  const matrix = root.getScreenCTM();
  if (!matrix) return null;
  const x = (event.clientX - matrix.e) / matrix.a, y = (event.clientY - matrix.f) / matrix.d;
  const far = FAR / matrix.a;
  let best = null, least = far;  // of several under the pointer the largest, which come first
  for (const row of drawn) {
    const p = row.points;
    let nearer = Infinity;
    for (let i = 0; i < 48; i += 2) {
      const dx = p[i + 2] - p[i], dy = p[i + 3] - p[i + 1];
      const t = Math.min(1, Math.max(0, ((x - p[i]) * dx + (y - p[i + 1]) * dy) / (dx * dx + dy * dy || 1)));
      nearer = Math.min(nearer, (x - p[i] - t * dx) ** 2 + (y - p[i + 1] - t * dy) ** 2);
    }
    const off = Math.max(0, Math.sqrt(nearer) - row.thick / 2);
    if (off < least) least = off, best = row;
  }
  return best;
}
function moved(event) {
  const i = roomAt(event.target), where = { left: event.clientX, right: event.clientX, top: event.clientY, bottom: event.clientY };
  if (i !== null) return roomTip(i, where);
  const row = nearest(event);
  if (row) edgeTip(row, where); else hide();
}
function numbers(row) {
  const tested = row.p === null ? "" : `, p ${digits(row.p)}` + (row.p_adjusted === null ? "" : `, adjusted ${digits(row.p_adjusted)}`);
  const of = n => n === null ? "" : `, ${count(n)} pairs`;
  return [`score, estimated: ${within(row.score, row.score_low, row.score_high)} ${unit()}${of(row.n)}`,
    row.effect === null ? "not patched exactly" : `exact effect: ${within(row.effect, row.effect_low, row.effect_high)} ${unit()}${of(row.effect_n)}${tested}`];
}
const entering = row => row.port === "mlp" || row.port === "end" ? "" : `, ${PORT[row.port]}`;
const edgeName = row => `${label(data.rooms[row.from])} → ${label(data.rooms[row.to])}${entering(row)}`;
function edgeTip(row, where) {
  const lines = [edgeName(row)];
  if (row.foreign) lines.push(`only in ${state.other}`, ...numbers(row));
  else if (row.twin) lines.push(`${state.circuit}:`, ...numbers(row), `${state.other}:`, ...numbers(row.twin));
  else lines.push(...numbers(row));
  tip(lines, where);
  focusOn([row]);
}
function incident(i, rows) {
  const kv = groups.get(i), one = data.rooms[i];
  const served = new Set(one.heads.map(head => index.get(head)));
  return [rows.filter(row => row.to === i || row.to === kv), rows.filter(row => row.from === i || served.has(row.from))];
}
function effect(i, name = state.circuit) {
  const found = data.circuits[name].nodes[i];
  return found ? `Effect of the node: ${within(found[0], found[1], found[2])} ${unit()}${found[3] === null ? "" : `, p adjusted ${digits(found[3])}`}.` : "";
}
function roomTip(i, where) {
  const one = data.rooms[i], all = rowsOf(state.circuit), [reads, writes] = incident(i, all);
  const sum = rows => within(rows.reduce((total, row) => total + (row.score || 0), 0));
  const side = (word, rows) => rows.length ? `${word} ${count(rows.length)} edge${rows.length > 1 ? "s" : ""}, scores sum to ${sum(rows)} ${unit()}` : `${word} nothing here`;
  const lines = [one.kind === "kv" ? `${one.name}: keys and values of ${one.heads.join(", ")}` : label(one), effect(i)];
  if (one.kind !== "embedding") lines.push(side("reads", reads));
  if (one.kind !== "end") lines.push(side(one.kind === "kv" ? "its heads write" : "writes", writes));
  tip(lines.filter(Boolean), where);
  const lit = incident(i, drawn);
  focusOn([...lit[0], ...lit[1]]);
}
function tip(lines, where) {
  const box = $("tip");
  box.replaceChildren(make("strong", {}, lines[0]), "\n" + lines.slice(1).join("\n"));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = Math.max(4, Math.min(where.right + 14, innerWidth - width - 4)) + "px";
  box.style.top = Math.max(4, where.bottom + 14 + height > innerHeight ? where.top - height - 10 : where.bottom + 14) + "px";
}
function focusOn(rows) {
  clear();
  if (!rows.length) return;
  root.classList.add("focus");
  for (const row of rows) paths.get(row.key)?.classList.add("on");
}
function clear() {
  root?.classList.remove("focus");
  root?.querySelectorAll(".edge.on").forEach(path => path.classList.remove("on"));
}
function hide() { $("tip").hidden = true; clear(); }

// 5. Keys.
function rove(i) {
  root.querySelectorAll(".room[tabindex='0']").forEach(other => other.setAttribute("tabindex", -1));
  roving = i;
  root.querySelector(`[data-room="${i}"]`)?.setAttribute("tabindex", 0);
}
function pressed(event) {
  const here = roomAt(event.target);
  if (here === null) return;
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); return open(here, true); }
  const way = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  const ends = { Home: "embedding", End: "end" }[event.key];
  if (!way && !ends) return;
  event.preventDefault();
  go(ends ? index.get(ends) : beside(here, way) ?? here);
}
function beside(here, [right, down]) {
  const centre = i => { const [x, y, w, h] = at.boxes[i]; return [x + w / 2, y + h / 2]; };
  const [x, y] = centre(here), lit = on();
  let best = null, least = Infinity;
  at.boxes.forEach((box, i) => {
    if (!box || i === here || (!lit.has(i) && state.plan === "close")) return;
    const [dx, dy] = [centre(i)[0] - x, centre(i)[1] - y];
    const along = right ? dx * right : dy * down, across = right ? Math.abs(dy) : Math.abs(dx);
    if (along < 3 || (right && across > 40)) return;
    const cost = right ? along + 4 * across : 3 * along + across;
    if (cost < least) least = cost, best = i;
  });
  return best;
}
function go(i) {
  const group = root.querySelector(`[data-room="${i}"]`);
  if (!group) return;
  rove(i);
  group.focus({ preventScroll: true });
  group.scrollIntoView({ block: "nearest", inline: "nearest" });
}
document.addEventListener("keydown", event => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range";
  if (event.key === "Escape" && state.open !== null) shut();
  else if (event.key === "/" && !typing) { event.preventDefault(); $("find").focus(); }
});

// 6. The panel of a room.
function clicked(event) {
  const i = roomAt(event.target);
  if (i !== null) return open(i, false);
  const row = nearest(event);
  if (row) moved(event); else hide();
}
function open(i, keyboard) {
  state.open = i;
  if (!at.boxes[i]) { state.plan = "full"; $("full").checked = true; draw(); }
  fill(i);
  $("panel").hidden = false;
  $("two").classList.add("open");
  mark();
  if (!state.zoom) size();
  rove(i);
  hide();
  root.querySelector(`[data-room="${i}"]`).scrollIntoView({ block: "nearest", inline: "nearest" });
  if (keyboard) $("panel").querySelector("h2").focus();
  if (matchMedia("(max-width: 62rem)").matches) $("panel").scrollIntoView({ block: "nearest" });
  address();
}
function shut() {
  const i = state.open;
  state.open = null;
  $("panel").hidden = true;
  $("two").classList.remove("open");
  mark();
  if (!state.zoom) size();
  address();
  go(i);
}
function mark() {
  root.querySelectorAll(".room.open").forEach(one => one.classList.remove("open"));
  if (state.open !== null) root.querySelector(`[data-room="${state.open}"]`)?.classList.add("open");
}
function fill(i) {
  const one = data.rooms[i], circuit = data.circuits[state.circuit], [reads, writes] = incident(i, rowsOf(state.circuit));
  const served = one.kind === "kv" ? `Keys and values of ${one.heads.join(", ")}; as readers they are called ${["k", "v"].map(port => one.name.replace("kv", "H") + "." + port).join(" and ")}.` : groups.has(i) ? `Its keys and values are those of ${data.rooms[groups.get(i)].name}, shared with ${data.rooms[groups.get(i)].heads.filter(name => name !== one.name).join(", ")}.` : "";
  $("panel").replaceChildren(
    make("header", {}, make("h2", { tabindex: -1 }, label(one)), make("button", { type: "button", onclick: shut, "aria-label": "Close the panel" }, "close")),
    make("p", { class: "soft" }, [served, effect(i)].filter(Boolean).join(" ") || (names.length > 1 ? `In the circuit of ${state.circuit}.` : "")),
    ...(one.kind === "embedding" ? [] : listed("Reads from", reads, "from")),
    ...(one.kind === "end" ? [] : listed(one.kind === "kv" ? "Its heads write to" : "Writes to", writes, "to")),
    ...attention(one.name, circuit.detail), ...texts(one.name, circuit.detail));
}
function listed(title, rows, side) {
  if (!rows.length) return [make("h3", {}, title), make("p", { class: "soft" }, "no edge of this circuit")];
  const sorted = [...rows].sort((a, b) => Math.abs(b.score ?? 0) - Math.abs(a.score ?? 0)), shown = sorted.slice(0, LISTED);
  const pairs = row => [row.n === null ? "" : count(row.n), row.effect_n === null ? null : make("span", { class: "under" }, `${count(row.effect_n)} exact`)];
  const stacked = (value, low, high) => [make("span", {}, digits(value)), low === null ? null : make("span", { class: "under" }, `[${digits(low)}, ${digits(high)}]`)];
  const cells = row => [stacked(row.score, row.score_low, row.score_high), row.effect === null ? ["not patched"] : stacked(row.effect, row.effect_low, row.effect_high),
    [make("span", {}, digits(row.p)), row.p_adjusted === null ? null : make("span", { class: "under" }, digits(row.p_adjusted))], pairs(row)];
  const line = row => make("tr", { onmouseenter: () => focusOn([row]), onmouseleave: clear },
    make("td", {}, make("button", { class: "plain", type: "button", onfocus: () => focusOn([row]), onblur: clear, onclick: () => open(row[side], true) }, label(data.rooms[row[side]])), ` ${row.port === "mlp" || row.port === "end" ? "" : row.port}`),
    ...cells(row).map(parts => make("td", {}, ...parts)));
  const heads = [side, "score", "exact effect", "p", "pairs"];
  return [make("h3", {}, `${title} (${count(rows.length)})`),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(text => make("th", {}, text, text === "p" ? make("span", { class: "under" }, "adjusted") : null)))), make("tbody", {}, ...shown.map(line)))),
    ...(rows.length > LISTED ? [make("p", { class: "soft" }, `The ${LISTED} largest of ${count(rows.length)}.`)] : [])];
}
function attention(name, detail) {
  const rows = detail.patterns[name];
  if (!rows) return [];
  const n = detail.tokens.length, cell = Math.max(1, Math.floor(720 / n)), canvas = make("canvas", { width: n * cell, height: n * cell, role: "img", "aria-label": `Attention of ${name}: a row a query token, a column a key token; the strongest pairs are listed below.` });
  const brush = canvas.getContext("2d"), hint = make("p", { class: "soft" }, "Rows are queries, columns keys; the darkness is the square root of the weight. Hover for a pair.");
  brush.fillStyle = data.colours.up;
  rows.forEach((row, query) => row.forEach((value, key) => { brush.globalAlpha = Math.sqrt(Math.min(1, value / 1000)); brush.fillRect(key * cell, query * cell, cell, cell); }));
  const token = i => JSON.stringify(detail.tokens[i]), plainHint = hint.textContent;
  canvas.addEventListener("mousemove", event => {
    const box = canvas.getBoundingClientRect(), key = Math.floor((event.clientX - box.left) / box.width * n), query = Math.floor((event.clientY - box.top) / box.height * n);
    if (query >= 0 && key >= 0 && query < n && key < n) hint.textContent = `${token(query)} (${query}) attends to ${token(key)} (${key}): ${((rows[query][key] || 0) / 1000).toFixed(3)}`;
  });
  canvas.addEventListener("mouseleave", () => { hint.textContent = plainHint; });
  const pairs = rows.flatMap((row, query) => row.map((value, key) => [value, query, key])).filter(([, query, key]) => key > 0 && query > 0).sort((a, b) => b[0] - a[0]).slice(0, 6);
  return [make("h3", {}, "Attention on an example text"), canvas, hint,
    make("p", { class: "soft" }, "The strongest pairs without the first token:"),
    make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...["query", "key", "weight"].map(text => make("th", {}, text)))),
      make("tbody", {}, ...pairs.map(([value, query, key]) => make("tr", {}, make("td", {}, `${token(query)} (${query})`), make("td", {}, `${token(key)} (${key})`), make("td", {}, (value / 1000).toFixed(3)))))))];
}
function texts(name, detail) {
  const items = detail.items[name];
  if (!items || !items.length) return [];
  return [make("h3", {}, "Top texts"), make("p", { class: "soft" }, `${detail.said}${detail.unit ? `, ${detail.unit}` : ""}.`),
    make("table", {}, make("tbody", {}, ...items.map(([text, value]) => make("tr", {}, make("td", {}, digits(value)), make("td", { class: "wrap" }, text)))))];
}

// 7. Addresses and finding.
function find(text) {
  const asked = text.trim().toLowerCase().replace(/\.mlp_(in|out)$/, ".mlp");
  const by = new Map(data.rooms.map((one, i) => [one.name.toLowerCase(), i]));
  const shared = /^(l\d+)\.h(\d+)\.[kv]$/.exec(asked);
  if (shared && by.has(`${shared[1]}.kv${shared[2]}`)) return by.get(`${shared[1]}.kv${shared[2]}`);
  return by.get(asked) ?? by.get(asked.replace(/\.[qkv]$/, "")) ?? (asked === "logits" ? by.get("end") : undefined);
}
function seek(keyboard) {
  const text = $("find").value, i = find(text);
  $("said").textContent = i === undefined ? (text.trim() ? `There is no room ${text.trim()}: type one as L5.H3 or L5.mlp.` : "") : "";
  if (i !== undefined) open(i, keyboard);
}
let wrote = "";
function address() {
  const parts = [names.length > 1 ? `circuit=${encodeURIComponent(state.circuit)}` : "", state.open === null ? "" : `node=${encodeURIComponent(data.rooms[state.open].name)}`].filter(Boolean);
  wrote = parts.length ? "#" + parts.join("&") : "";
  try { history.replaceState(null, "", wrote || location.pathname + location.search); } catch { /* a frame without an address of its own */ }
}
function arrive() {
  if (location.hash === wrote) return;
  const asked = new URLSearchParams(location.hash.slice(1)), circuit = asked.get("circuit"), node = asked.get("node");
  if (circuit !== null && names.includes(circuit) && circuit !== state.circuit) { $("circuit").value = circuit; turn(); }
  const i = node === null ? undefined : find(node);
  if (i !== undefined) open(i, false);
  else if (node !== null) $("said").textContent = `There is no room ${node}.`;
}

// 8. Export: a copy whose colours stand in its attributes, so that it looks the same anywhere.
const KEPT = ["fill", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-size", "text-anchor"];
function exported() {
  hide();
  root.querySelectorAll(".room.open").forEach(one => one.classList.remove("open"));
  const copy = root.cloneNode(true), mine = root.querySelectorAll("*"), theirs = copy.querySelectorAll("*");
  mine.forEach((one, i) => {
    if (!["path", "rect", "text", "g"].includes(one.tagName)) return;
    const style = getComputedStyle(one), names = one.tagName === "g" ? ["opacity"] : KEPT;
    for (const name of names) if (!(one.tagName !== "text" && ["font-size", "text-anchor"].includes(name))) theirs[i].setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role", "data-room", "id"]) theirs[i].removeAttribute(name);
  });
  mark();
  const paper = getComputedStyle(document.body).backgroundColor, ink = getComputedStyle(document.body).color;
  const meaning = state.other ? `Blue: only ${state.circuit}; orange: only ${state.other}; green: in both.` : "Blue supports the metric, orange opposes it.";
  const head = [document.title, `${$("about").textContent}. ${$("kept").textContent} ${meaning} Dashed: into keys; dotted: into values.`];
  const wrapped = head.flatMap((text, i) => wrap(text, Math.floor(at.width / (i ? 6.6 : 9.2))).map(line => [line, i])), top = 20 + wrapped.length * 17;
  const words = wrapped.map(([line, i], row) => make("text", { x: 10, y: 20 - top + row * 17, fill: ink, "font-size": i ? 11 : 14, "font-weight": i ? 400 : 600 }, line));
  copy.prepend(make("rect", { x: 0, y: -top, width: at.width, height: at.height + top, fill: paper }), ...words);
  copy.setAttribute("viewBox", `0 ${-top} ${at.width} ${at.height + top}`);
  copy.setAttribute("width", at.width);
  copy.setAttribute("height", at.height + top);
  copy.setAttribute("font-family", "system-ui, 'DejaVu Sans', Arial, sans-serif");
  copy.removeAttribute("class");
  copy.removeAttribute("id");
  const unfit = /[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu;  // XML has no such characters
  return { text: new XMLSerializer().serializeToString(copy).replace(unfit, ""), width: at.width, height: at.height + top };
}
function wrap(text, most) {
  const out = [""];
  for (const word of text.split(/\s+/)) if (out[out.length - 1] && (out[out.length - 1] + " " + word).length > most) out.push(word); else out[out.length - 1] = (out[out.length - 1] + " " + word).trim();
  return out;
}
function save(blob, ending) {
  const link = make("a", { href: URL.createObjectURL(blob), download: `circuit-${state.circuit.replace(/[^\w-]+/g, "_")}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 5000);
}
function image() {
  const { text, width, height } = exported(), scale = Math.min(2, 12000 / Math.max(width, height)), picture = new Image();
  return new Promise((done, failed) => {
    picture.onload = () => {
      const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(blob => blob ? done(blob) : failed(new Error("the image is too large")), "image/png");
    };
    picture.onerror = () => failed(new Error("the drawing could not be read"));
    picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  });
}

// 9. Controls.
function turn() {
  state.circuit = $("circuit").value;
  state.other = $("other").value === state.circuit ? "" : $("other").value;
  $("other").value = state.other;
  const circuit = data.circuits[state.circuit], meta = circuit.meta;
  $("about").textContent = [meta.model, meta.emotion && `circuit of ${meta.emotion}`, meta.metric && `metric: ${meta.metric}${meta.unit ? ` (${meta.unit})` : ""}`, meta.method && `scored by ${meta.method}`, meta.n_pairs && `${count(meta.n_pairs)} pairs`].filter(Boolean).join("; ");
  $("info").textContent = circuit.info;
  draw();
  if (state.open !== null) fill(state.open), address();
}
names.forEach(name => { $("circuit").append(make("option", { value: name }, name)); $("other").append(make("option", { value: name }, name)); });
document.querySelectorAll(".many").forEach(one => { one.hidden = names.length < 2; one.style.display = names.length < 2 ? "none" : ""; });
$("names").append(...data.rooms.map(one => make("option", { value: one.name })));
let waiting = 0;
$("keep").addEventListener("input", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); });
$("circuit").addEventListener("change", () => { turn(); address(); });
$("other").addEventListener("change", turn);
$("weight").addEventListener("change", () => { state.weight = $("weight").value; draw(); });
$("full").addEventListener("change", () => { state.plan = $("full").checked ? "full" : "close"; draw(); });
document.querySelectorAll("[data-port]").forEach(box => box.addEventListener("change", () => { if (box.checked) state.ports.add(box.dataset.port); else state.ports.delete(box.dataset.port); draw(); }));
$("find").addEventListener("keydown", event => { if (event.key === "Enter") seek(true); });
$("find").addEventListener("input", event => { if (!event.inputType || event.inputType === "insertReplacementText") seek(false); });  // from the list
$("more").addEventListener("click", () => zoomTo(size() * 1.25));
$("less").addEventListener("click", () => zoomTo(size() / 1.25));
$("wide").addEventListener("click", () => { state.zoom = 0; zoomTo(($("stage").clientWidth - 18) / at.width); });
$("whole").addEventListener("click", () => zoomTo(Math.min(($("stage").clientWidth - 18) / at.width, ($("stage").clientHeight - 6) / at.height)));
$("svg").addEventListener("click", () => save(new Blob([exported().text], { type: "image/svg+xml" }), "svg"));
$("png").addEventListener("click", () => image().then(blob => save(blob, "png"), error => { $("said").textContent = `No PNG: ${error.message}.`; }));
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});
window.addEventListener("resize", () => { if (!state.zoom) size(); });
window.addEventListener("hashchange", arrive);
slider(FIRST, rowsOf(state.circuit).length);
turn();
arrive();
})();
