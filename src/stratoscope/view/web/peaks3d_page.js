// The page around the picture: controls, layout, theme. The picture itself is computed in `peaks3d.js`.
"use strict";

const LISTED = 10; // rows of the list of highest peaks

const view = /** @type {PeaksView} */ (readView(text("stratoscope-view")));
const page = JSON.parse(text("stratoscope-page")); // what Plotly needs: empty figure, templates, configuration
const controls = /** @type {any} */ (document.getElementById("controls")).elements;
const plot = /** @type {any} */ (document.getElementById("plot"));
const heights = Array.from(view.content.height).sort((a, b) => a - b);

/** @type {State} */
const state = {
  sort: "position",
  layers: new Set(),
  threshold: 0,
  choice: -1,
  scale: view.look.scale,
  firstToken: view.look.first_token,
};
let theme = view.look.theme === "dark" || matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
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
    const size = { width: plot.clientWidth, height: Math.max(plot.clientHeight, 1) };
    lay(view, state, scenes, layout, size, camera);
    layout.template = page.templates[theme];
    describe();
    await new Promise(requestAnimationFrame); // the words first: a large picture takes a moment
    await Plotly.react(plot, data, layout, page.config);
  }
  window.stratoscopeReady = true;
}

// --- words -----------------------------------------------------------------------------------------------------------

function describe() {
  const drawn = scenes.reduce((sum, scene) => sum + scene.peaks.length, 0);
  const above = page.figure.data.reduce((sum, trace) => sum + (trace.marker?.symbol ?? []).filter((kind) => kind !== "circle").length, 0);
  element("count").textContent = `${grouped(String(drawn))} of ${counted(view.content.total, "peak")}.`;
  element("above").textContent = above ? `${grouped(String(above))} beyond the scale (◇).` : "";
  element("filters").textContent = filterWords();
  element("scale-words").textContent = view.content.scales[state.scale].words;
  element("empty").hidden = drawn > 0;
  element("threshold-value").textContent = state.threshold > 0 ? `≥ ${number(state.threshold)}` : "all";
  element("layers-words").textContent = layerWords();
  const now = notesNow(view, state);
  for (const note of document.querySelectorAll("[data-note]")) note.hidden = !now.includes(Number(note.dataset.note));
  element("first-left-out").hidden = state.firstToken;
  list();
}

/** What the controls leave out, for the caption. */
function filterWords() {
  const { layers, choices } = view.content;
  const words = [];
  if (state.choice >= 0) words.push(choices[state.choice]);
  if (state.layers.size < layers.length) words.push(layerWords());
  if (state.threshold > 0) words.push(`at least ${number(state.threshold)} high`);
  return words.length ? `Shown: ${words.join(", ")}.` : "";
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
  const { token, layer, value, height } = view.content;
  const { text, position, prompt, prompts, first } = view.tokens;
  const counts = (peak) => state.firstToken || !first[token[peak]];
  const top = scenes.flatMap((scene) => scene.peaks.filter(counts)).sort((a, b) => height[b] - height[a] || a - b);
  const rows = top.slice(0, LISTED).map((peak) => {
    const of = token[peak];
    const cells = [
      [text[of]],
      [prompts[prompt[of]].id],
      [position[of], "number"],
      [`L${layer[peak]}`, "number"],
      [neuronName(view, peak), "number"],
      [number(value[peak]), "number"],
      [number(height[peak]), "number"],
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
  for (const [name, colour] of Object.entries(view.colours.themes[theme])) {
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

/** Save the picture as a PNG with its title and caption. */
function save() {
  const size = { width: plot.clientWidth, height: plot.clientHeight };
  const caption = [...document.querySelectorAll("footer p")].flatMap((line) => wrapped(line.innerText, size.width / 6.4));
  const [above, below] = [40, 16 * caption.length + 14];
  const layout = structuredClone(page.figure.layout);
  scenes.forEach((_, index) => (layout[sceneName(index)].camera = plot._fullLayout[sceneName(index)].camera));
  layout.margin = { l: 0, r: 0, t: above, b: below };
  layout.title = { text: escaped(document.title), x: 0.01, xanchor: "left", y: 1, yanchor: "top", pad: { t: 12 } };
  layout.annotations.push({
    ...{ xref: "paper", yref: "paper", x: 0.01, y: 0, yshift: -4, xanchor: "left", yanchor: "top", align: "left" },
    ...{ text: caption.map(escaped).join("<br>"), showarrow: false, font: { size: 11 } },
  });
  const image = { format: "png", filename: "peaks3d", width: size.width, height: size.height + above + below, scale: 2 };
  return Plotly.downloadImage({ data: page.figure.data, layout, config: page.config }, image);
}

/** Lines of at most so many characters. */
function wrapped(words, most) {
  const lines = [""];
  for (const word of words.split(/\s+/)) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length >= most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}

paint();
connect();
update().then(follow);
