"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement, $ = id => document.getElementById(id);
const wide = matchMedia("(min-width: 640px)"), most = 400;
let sort = {key: "affect", down: true}, open = null;

function make(tag, attributes, ...children) {
  const svg = ["svg", "line", "circle", "text", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  for (const child of children) element.append(child);
  return element;
}
const figure = (value, digits = 2) => value === null || value === undefined ? "" : Math.abs(value) >= 1e-3 || value === 0 ? value.toFixed(digits) : value.toExponential(1);
const range = (row, name) => row[name] === null || row[name] === undefined ? "" :
  row[name + "_low"] === undefined || row[name + "_low"] === null ? figure(row[name]) : `${figure(row[name])} [${figure(row[name + "_low"])}, ${figure(row[name + "_high"])}]`;
const dot = name => make("span", {class: "dot", style: `background:${data.colours[name]}`, "aria-hidden": "true"});
const kept = row => (!$("emotion").value || row.emotion === $("emotion").value) && (!$("class").value || row.class === $("class").value);

// the plane
function paint() {
  const style = getComputedStyle(root), read = name => style.getPropertyValue(name).trim();
  const layout = structuredClone(data.figure.layout);
  layout.font.color = read("--soft");
  layout.modebar = {bgcolor: "rgba(0,0,0,0)", color: read("--soft"), activecolor: read("--link")};
  layout.hoverlabel = {bgcolor: read("--paper"), font: {color: read("--ink")}, align: "left"};
  layout.uirevision = "kept";
  if (!wide.matches) { layout.margin = {l: 42, r: 6, t: 40, b: 50}; layout.font.size = 11; layout.title.font.size = 13; }
  const traces = data.figure.data.map(trace => {
    if (!trace.customdata) return trace;
    const at = trace.customdata.map((each, i) => kept(data.rows[each[0]]) ? i : -1).filter(i => i >= 0);
    const pick = list => at.map(i => list[i]), copy = {...trace, x: pick(trace.x), y: pick(trace.y), customdata: pick(trace.customdata)};
    copy.marker = {...trace.marker, symbol: pick(trace.marker.symbol)};
    for (const axis of ["error_x", "error_y"]) copy[axis] = {...trace[axis], array: pick(trace[axis].array), arrayminus: pick(trace[axis].arrayminus), visible: $("bars").checked};
    return copy;
  });
  const here = data.rows.filter(row => row.feature === open && kept(row));
  traces.push({x: here.map(row => row.words), y: here.map(row => row.affect), mode: "markers", hoverinfo: "skip", showlegend: false,
    marker: {symbol: "circle-open", size: 20, color: read("--ink"), line: {width: 2}}});
  Plotly.react("plane", traces, layout, {responsive: true, displaylogo: false, displayModeBar: wide.matches ? "hover" : false, toImageButtonOptions: {format: "svg", filename: "plane"}});
}

// the table
const columns = [["feature", "feature"], ["emotion", "emotion"], ["class", "class"], ["support", "support of nearest"], ["affect", "affect, SD"], ["words", "words, SD"],
  ["crossed", "crossed, SD"], ["auroc", "AUROC"], ["q", "q"], ["crossed_q", "crossed q"]].filter(([key]) => data.rows.some(row => row[key] !== undefined && row[key] !== null));
function list() {
  const rows = data.rows.filter(kept), blank = value => value === null || value === undefined;
  rows.sort((a, b) => {
    const x = a[sort.key], y = b[sort.key];
    if (blank(x) || blank(y)) return blank(x) - blank(y);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return sort.down ? -order : order;
  });
  $("table").tHead.replaceChildren(make("tr", {}, ...columns.map(([key, name]) => {
    const button = make("button", {type: "button"}, name + (sort.key === key ? sort.down ? " ↓" : " ↑" : ""));
    button.addEventListener("click", () => { sort = {key, down: sort.key === key ? !sort.down : key !== "feature" && key !== "q"}; list();
      [...$("table").tHead.querySelectorAll("button")][columns.findIndex(each => each[0] === key)].focus(); });
    return make("th", {scope: "col", "aria-sort": sort.key === key ? sort.down ? "descending" : "ascending" : "none"}, button);
  })));
  $("table").tBodies[0].replaceChildren(...rows.slice(0, most).map(row => make("tr", row.feature === open ? {class: "open"} : {}, ...columns.map(([key]) => {
    if (key === "feature") {
      const button = make("button", {type: "button", class: "plain", "aria-label": `open feature ${row.feature}`}, String(row.feature));
      button.addEventListener("click", () => go(row.feature));
      return make("td", {}, button);
    }
    if (key === "class") return make("td", {}, dot(row.class), row.class === "unclear" ? `unclear (nearest ${row.nearest})` : row.class);
    if (key === "support") return make("td", {}, `${Math.round(100 * row.support)}%`);
    if (typeof row[key] === "string") return make("td", {}, row[key]);
    return make("td", {}, key === "q" || key === "crossed_q" ? figure(row[key], 3) : range(row, key));
  }))));
  $("count").textContent = rows.length > most ? `The first ${most} of ${rows.length} rows; filter or sort for others.` : `${rows.length} rows.`;
}

// a card
function forest(row) {
  const names = data.responses.filter(name => row[name] !== null && row[name] !== undefined);
  const ends = names.flatMap(name => [row[name], row[name + "_low"], row[name + "_high"]]).filter(value => value !== null && value !== undefined);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends), span = high - low || 1, left = 86, width = 440, right = 132;
  const x = value => left + (value - low) / span * (width - left - right), height = 22 * names.length + 24;
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, width: "100%", role: "img", "aria-label": names.map(name => `${name} ${range(row, name)}`).join("; ")});
  svg.append(make("line", {class: "zero", x1: x(0), x2: x(0), y1: 0, y2: height - 20}));
  names.forEach((name, i) => {
    const y = 22 * i + 12;
    svg.append(make("text", {x: 0, y: y + 4}, name.replace("_", " ")));
    if (row[name + "_low"] !== null) svg.append(make("line", {x1: x(row[name + "_low"]), x2: x(row[name + "_high"]), y1: y, y2: y, stroke: data.colours[row.class], "stroke-width": 2.5}));
    svg.append(make("circle", {cx: x(row[name]), cy: y, r: 4, fill: data.colours[row.class]}));
    svg.append(make("text", {x: width - right + 6, y: y + 4, class: "note"}, range(row, name)));
  });
  svg.append(make("text", {x: x(0) - 3, y: height - 5, class: "note"}, "0"), make("text", {x: width - right - 18, y: height - 5, class: "note"}, "SD"));
  return svg;
}
function example(one, peak) {
  const pieces = data.texts[one.id], strength = new Map(one.active);
  const text = make("p", {class: "text", dir: "auto"});
  pieces.forEach((piece, i) => {
    const value = strength.get(i);
    if (!value) { text.append(piece); return; }
    text.append(make("span", {style: `background:rgba(217,121,28,${(0.08 + 0.52 * Math.min(value / peak, 1)).toFixed(3)})`, title: `${piece} ${figure(value)}`}, piece));
  });
  return [make("div", {class: "soft"}, [one.id, one.role, one.emotion].filter(Boolean).join(", ") + `: peak ${figure(one.peak)}`), text];
}
function tokens(pairs) {
  return make("ul", {class: "tokens"}, ...pairs.map(([token, effect]) => make("li", {title: `${figure(effect, 3)} logits a unit`}, JSON.stringify(token).slice(1, -1))));
}
function show(number) {
  const rows = data.rows.filter(row => row.feature === number), card = data.cards[String(number)], out = [];
  if (!rows.length && !card) { $("said").textContent = `Feature ${number} is not placed.`; return false; }
  $("said").textContent = "";
  out.push(make("h2", {tabindex: "-1"}, `Feature ${number}`));
  const facts = [];
  if (card && card.density !== null) facts.push(`active at ${figure(100 * card.density, 2)}% of the battery's tokens`);
  if (rows.length) facts.push(`one SD is ${figure(rows[0].unit, 3)} of its own units`);
  if (facts.length) out.push(make("p", {class: "soft"}, facts.join("; ") + "."));
  if (card && card.link) out.push(make("p", {}, make("a", {href: card.link, rel: "noopener noreferrer"}, "its page on Neuronpedia")));
  for (const note of card ? card.notes : []) out.push(make("p", {}, note));
  for (const row of rows) {
    out.push(make("h3", {}, dot(row.class), `${row.emotion}: ${row.class}`));
    const said = [`nearest ${row.nearest} in ${Math.round(100 * row.support)}% of draws`];
    if (row.why) said.push(row.why);
    if (row.auroc !== undefined && row.auroc !== null) said.push(`AUROC ${range(row, "auroc")}`);
    for (const key of ["d", "q", "q_confirm", "crossed_q"]) if (row[key] !== undefined && row[key] !== null) said.push(`${key.replace("_", " ")} ${figure(row[key], 3)}`);
    said.push(`${row.scenes} scenes, ${row.decoys} decoys, ${row.quadruples} quadruples`);
    if (row.affect_needed) said.push(`absence of words can be shown from an affect response of ${figure(row.affect_needed)} SD, absence of affect from a words response of ${figure(row.words_needed)} SD (80% power)`);
    out.push(make("p", {class: "soft"}, said.join("; ") + "."), forest(row));
  }
  if (card) {
    const peak = Math.max(1e-12, ...card.texts.map(one => one.peak));
    out.push(make("h3", {}, "Where it peaks"));
    if (!card.texts.length) out.push(make("p", {class: "soft"}, "It is not active on any text."));
    for (const one of card.texts) out.push(...example(one, peak));
    if (Object.keys(card.by_role).length) {
      const parts = make("details", {}, make("summary", {}, "Highest peaks by role of the text"));
      for (const [role, some] of Object.entries(card.by_role)) {
        parts.append(make("h3", {}, role));
        if (!some.length) parts.append(make("p", {class: "soft"}, "silent"));
        for (const one of some) parts.append(...example(one, peak));
      }
      out.push(parts);
    }
    if (card.promoted.length) out.push(make("h3", {}, "Tokens that it promotes"), tokens(card.promoted), make("h3", {}, "Tokens that it suppresses"), tokens(card.suppressed),
      make("p", {class: "soft"}, "By its decoder row through the final norm's gain and the unembedding, the norm's scale left out."));
  }
  open = number;
  $("card").replaceChildren(...out);
  $("card").scrollTop = 0;
  $("number").value = number;
  return true;
}
function fromHash() {
  const found = /^#feature=(\d+)$/.exec(location.hash);
  if (found && show(Number(found[1]))) { list(); paint(); $("card").querySelector("h2").focus({preventScroll: wide.matches}); }
}
function go(number) {
  if (location.hash === `#feature=${number}`) fromHash(); else location.hash = `feature=${number}`;
}

$("filters").addEventListener("submit", event => { event.preventDefault(); if ($("number").value !== "") go(Number($("number").value)); });
for (const id of ["emotion", "class"]) $(id).addEventListener("change", () => { list(); paint(); });
$("bars").addEventListener("change", paint);
$("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  paint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
wide.addEventListener("change", paint);
window.addEventListener("hashchange", fromHash);
list();
paint();
$("plane").on("plotly_click", event => { const at = event.points.find(point => point.customdata); if (at) go(data.rows[at.customdata[0]].feature); });
fromHash();
