// The page around the picture: controls, layout, theme. The picture itself is computed in `peaks3d.js`.
"use strict";

const LISTED = 10; // rows of the list of highest peaks
const VIEW = [0.16, -0.86, 0.48]; // where the camera stands, as a direction from the middle of the box
const ROOM = 0.88; // part of the scene that the box may fill; the rest is for labels

const view = readView(text("stratoscope-view"));
const page = JSON.parse(text("stratoscope-page")); // what Plotly needs: empty figure, templates, colours
const controls = /** @type {any} */ (document.getElementById("controls")).elements;
const plot = /** @type {any} */ (document.getElementById("plot"));
const heights = Array.from(view.buffers.peak_height).sort((a, b) => a - b);

/** @type {State} */
const state = {
  sort: "position",
  layers: new Set(),
  threshold: 0,
  choice: -1,
  scale: "robust",
  firstToken: false,
};
let theme = view.content.state.theme === "dark" || matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
/** Where the reader has put the camera of all scenes; null = where `cameraFor` puts it. */
let camera = null;
/** @type {Scene[]} */
let scenes = [];
/** @type {Promise<void> | null} */
let drawing = null;
let changed = false;

/** @param {string} id */
function text(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id)).textContent ?? "";
}

/** @param {string} id */
function element(id) {
  return /** @type {any} */ (document.getElementById(id));
}

const number = (value) => (value === 0 ? "0" : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 }));
const counted = (value) => value.toLocaleString("en");

// --- drawing ---------------------------------------------------------------------------------------------------------

/** Draw the state; what changes meanwhile is drawn once more at the end. */
function draw() {
  changed = true;
  drawing ??= drawAll().finally(() => (drawing = null));
  return drawing;
}

async function drawAll() {
  window.stratoscopeReady = false;
  while (changed) {
    changed = false;
    scenes = arrange(view, state);
    const { data, layout } = page.figure;
    scenes.forEach((scene, index) => fill(view, state, scene, data.slice(3 * index, 3 * index + 3)));
    lay();
    describe();
    await new Promise(requestAnimationFrame); // the words first: a large picture takes a moment
    await Plotly.react(plot, data, layout, page.config);
  }
  window.stratoscopeReady = true;
}

/** Places, axes and limits of the scenes that have something in them. */
function lay() {
  const { layout } = page.figure;
  const limits = limitsOf(view, state);
  const shown = scenes.map((scene, index) => index).filter((index) => scenes[index].peaks.length || view.content.choice.names.length < 2);
  const grid = gridOf(Math.max(shown.length, 1));
  scenes.forEach((scene, index) => {
    const place = shown.indexOf(index);
    const name = sceneName(index);
    const title = layout.annotations[index];
    title.visible = place >= 0;
    if (place < 0) {
      layout[name].domain = { x: [0, 0.001], y: [0, 0.001] };
      return;
    }
    const domain = domainOf(place, grid);
    layout[name].domain = domain;
    title.x = domain.x[0] + 0.01;
    title.y = domain.y[1];
    const labels = Math.max(Math.floor(view.content.style.token_labels / grid.columns), 2);
    Object.assign(layout[name].xaxis, tokenTicks(scene, labels));
    layout[name].xaxis.title = { text: tokenTitle() };
    layout[name].aspectratio = { x: grid.wide, y: 1, z: grid.tall };
    layout[name].camera = camera ?? cameraFor(grid);
    const span = limits.ceiling - limits.floor;
    layout[name].zaxis.range = [limits.floor, limits.floor + span * view.content.style.top];
    Object.assign(layout[name].zaxis, axisTicks(limits));
  });
  Object.assign(layout.coloraxis, { cmin: limits.colour[0], cmax: limits.colour[1] });
  Object.assign(layout.coloraxis.colorbar, axisTicks(limits));
  layout.coloraxis.colorbar.title.text = limits.title;
  layout.template = page.templates[theme];
}

function tokenTitle() {
  return { position: "token", text: "token, by text", activity: "token, most active first" }[state.sort];
}

/** Rows and columns for so many scenes, and the shape of their boxes (the depth is 1). */
function gridOf(count) {
  const ratio = plot.clientWidth / Math.max(plot.clientHeight, 1);
  let columns = Math.min(count, 3);
  if (count === 4) columns = 2;
  while (columns > 1 && ratio / columns < 0.75) columns--;
  const rows = Math.ceil(count / columns);
  const shape = (ratio * rows) / columns;
  return { columns, rows, wide: between(1, 1.05 * shape, 2.2), tall: between(0.7, 0.95 / shape, 1.1) };
}

/** The nearest camera that sees the whole box: labels need room, so the box may not fill the scene. */
function cameraFor({ columns, rows, wide, tall }) {
  const ratio = ((plot.clientWidth / columns) * rows) / plot.clientHeight;
  const corners = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => [(x * wide) / 2, y / 2, (z * tall) / 2])));
  const forward = unit(VIEW.map((part) => -part));
  const right = unit(cross(forward, [0, 0, 1]));
  const up = cross(right, forward);
  const most = Math.tan(Math.PI / 8) * ROOM; // half the field of view of Plotly's camera
  let distance = 0.5;
  const fits = (corner) => {
    const deep = dot(corner, forward) + distance;
    return Math.abs(dot(corner, right)) <= deep * most * ratio && Math.abs(dot(corner, up)) <= deep * most && deep > 0;
  };
  while (distance < 8 && !corners.every(fits)) distance += 0.05;
  const [x, y, z] = forward.map((part) => -part * distance);
  return { eye: { x, y, z }, center: { x: 0, y: 0, z: -0.09 }, up: { x: 0, y: 0, z: 1 } };
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((part) => part / Math.hypot(...a));

const between = (low, value, high) => Math.min(Math.max(value, low), high);

function domainOf(place, { columns, rows }) {
  const [column, row] = [place % columns, Math.floor(place / columns)];
  return { x: [column / columns, (column + 1) / columns], y: [1 - (row + 1) / rows, 1 - row / rows] };
}

/** Labels of evenly sampled tokens, the first and the last among them. */
function tokenTicks(scene, most) {
  const sampled = sample(scene.order, most);
  return {
    tickvals: sampled.map((token) => scene.place.get(token)),
    ticktext: sampled.map((token) => view.content.labels[token].replace(/</g, "<\u200b")), // a tag to the axes otherwise
  };
}

/** @param {number[]} items */
function sample(items, most) {
  const count = Math.min(items.length, most);
  if (count < 2) return items.slice(0, count);
  return Array.from({ length: count }, (_, index) => items[Math.round((index * (items.length - 1)) / (count - 1))]);
}

function axisTicks(limits) {
  if (!limits.ticks.length) return { tickmode: "auto", tickvals: undefined, ticktext: undefined };
  return { tickmode: "array", tickvals: limits.ticks.map((tick) => tick[0]), ticktext: limits.ticks.map((tick) => tick[1]) };
}

// --- words -----------------------------------------------------------------------------------------------------------

function describe() {
  const drawn = scenes.reduce((sum, scene) => sum + scene.peaks.length, 0);
  const above = page.figure.data.reduce((sum, trace) => sum + (trace.marker?.symbol ?? []).filter((kind) => kind !== "circle").length, 0);
  element("count").textContent = `${counted(drawn)} of ${counted(view.content.total)} peaks.`;
  element("above").textContent = above ? `${counted(above)} beyond the scale (◇).` : "";
  element("empty").hidden = drawn > 0;
  element("threshold-value").textContent = state.threshold > 0 ? `≥ ${number(state.threshold)}` : "all";
  element("layers-words").textContent = layerWords();
  for (const note of document.querySelectorAll(".without-first")) note.hidden = state.firstToken;
  list();
}

function layerWords() {
  const picked = view.content.layers.filter((layer) => state.layers.has(layer));
  if (!picked.length) return "none";
  const runs = [];
  view.content.layers.forEach((layer, index) => {
    if (!state.layers.has(layer)) return;
    const before = view.content.layers[index - 1];
    if (index && state.layers.has(before)) runs[runs.length - 1][1] = layer;
    else runs.push([layer, layer]);
  });
  return runs.map(([from, to]) => (from === to ? `L${from}` : `L${from}–L${to}`)).join(", ");
}

/** The highest peaks of what is drawn, as a table. */
function list() {
  const { peak_token, peak_layer, peak_neuron, peak_value, peak_height, token_position, token_prompt, token_first } =
    view.buffers;
  const counts = (peak) => state.firstToken || !token_first[peak_token[peak]];
  const top = scenes.flatMap((scene) => scene.peaks.filter(counts)).sort((a, b) => peak_height[b] - peak_height[a] || a - b);
  const rows = top.slice(0, LISTED).map((peak) => {
    const token = peak_token[peak];
    const cells = [
      [view.content.labels[token]],
      [view.content.prompts[token_prompt[token]]],
      [token_position[token], "number"],
      [`L${peak_layer[peak]}`, "number"],
      [peak_neuron[peak], "number"],
      [number(peak_value[peak]), "number"],
      [number(peak_height[peak]), "number"],
    ];
    const row = document.createElement("tr");
    for (const [words, kind] of cells) {
      const cell = row.insertCell();
      cell.textContent = String(words);
      if (kind) cell.className = kind;
    }
    return row;
  });
  element("highest").replaceChildren(...rows);
}

// --- controls --------------------------------------------------------------------------------------------------------

/** The state is what the controls say, also after a reload that keeps them, or a reset. */
function read() {
  state.sort = controls.sort.value;
  state.scale = controls.scale.value;
  state.firstToken = controls.first.checked;
  state.choice = controls.choice ? Number(controls.choice.value) : -1;
  state.threshold = thresholdAt(Number(controls.threshold.value) / 1000);
  state.layers = new Set(chips().filter((chip) => chip.checked).map((chip) => Number(chip.value)));
}

function update() {
  read();
  return draw();
}

/** @returns {HTMLInputElement[]} */
function chips() {
  return [...element("chips").querySelectorAll("input")];
}

/** @param {(layer: number) => boolean} wanted */
function pick(wanted) {
  for (const chip of chips()) chip.checked = wanted(Number(chip.value));
  update();
}

function pickRange() {
  const ends = [Number(controls.from.value), Number(controls.to.value)];
  pick((layer) => layer >= Math.min(...ends) && layer <= Math.max(...ends));
}

/** The slider hides a share of the drawn peaks: each step hides as many, whatever their heights. */
function thresholdAt(share) {
  return share <= 0 ? 0 : heights[Math.min(Math.floor(share * heights.length), heights.length - 1)];
}

function connect() {
  const form = element("controls");
  form.addEventListener("input", (event) => ([controls.from, controls.to].includes(event.target) ? pickRange() : update()));
  form.addEventListener("reset", () => {
    camera = null;
    setTimeout(update); // the controls have their first values only after this event
  });
  controls.all.addEventListener("click", () => pick(() => true));
  controls.none.addEventListener("click", () => pick(() => false));
  controls.image.addEventListener("click", save);
  controls.theme.addEventListener("click", () => {
    theme = theme === "dark" ? "light" : "dark";
    paint();
    draw();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && closeCards(null));
  document.addEventListener("pointerdown", (event) => closeCards(event.target));
  addEventListener("resize", relay);
}

/** Close the open cards, but not the one that the event is in. */
function closeCards(target) {
  for (const card of document.querySelectorAll("details[open]")) {
    if (card.contains(target)) continue;
    if (card.contains(document.activeElement)) card.querySelector("summary").focus();
    card.open = false;
  }
}

function paint() {
  document.documentElement.dataset.theme = theme;
  for (const [name, colour] of Object.entries(page.colours[theme])) {
    document.documentElement.style.setProperty(`--${name}`, colour);
  }
  controls.theme.textContent = theme === "dark" ? "Light" : "Dark";
}

let waiting = 0;
function relay() {
  clearTimeout(waiting);
  waiting = setTimeout(draw, 120);
}

/** One camera for all scenes, which stays when something else changes. */
function follow() {
  let following = false;
  const copy = (event) => {
    const moved = Object.keys(event).find((name) => name.endsWith(".camera"));
    if (!moved || following) return;
    camera = event[moved];
    if (scenes.length < 2) return;
    following = true;
    const change = Object.fromEntries(scenes.map((_, index) => [`${sceneName(index)}.camera`, camera]));
    Plotly.relayout(plot, change).then(() => (following = false));
  };
  plot.on("plotly_relayouting", copy);
  plot.on("plotly_relayout", copy);
}

/** @param {number} index */
function sceneName(index) {
  return index ? `scene${index + 1}` : "scene";
}

/** Save the picture as a PNG with its title and caption. */
function save() {
  const words = [document.title, ...[...document.querySelectorAll("footer p:not([hidden])")].map((line) => line.innerText)];
  const layout = structuredClone(page.figure.layout);
  scenes.forEach((_, index) => {
    const name = sceneName(index);
    layout[name].camera = plot._fullLayout[name].camera;
  });
  layout.margin = { l: 0, r: 0, t: 40, b: 20 * words.length };
  layout.title = { text: escaped(words[0]), x: 0.01, xanchor: "left" };
  layout.annotations.push({
    text: words.slice(1).map(escaped).join("<br>"),
    xref: "paper", yref: "paper", x: 0.01, y: 0, yshift: -6, xanchor: "left", yanchor: "top", align: "left",
    showarrow: false, font: { size: 11 },
  });
  const size = { width: plot.clientWidth, height: plot.clientHeight + 40 + 20 * words.length, scale: 2 };
  return Plotly.downloadImage({ data: page.figure.data, layout, config: page.config }, { format: "png", filename: "peaks3d", ...size });
}

paint();
connect();
update().then(follow);
