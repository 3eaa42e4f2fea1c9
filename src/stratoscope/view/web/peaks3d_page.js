// The page around the picture: controls, layout, theme. The picture itself is computed in `peaks3d.js`.
"use strict";

const LISTED = 10; // rows of the list of highest peaks
const PRINTED = { width: 700, lowest: 480, highest: 720 }; // pixels of a printed picture

const view = /** @type {PeaksView} */ (readView(text("stratoscope-view")));
const page = JSON.parse(text("stratoscope-page")); // what Plotly needs: empty figure, templates, configuration
const controls = /** @type {any} */ (document.getElementById("controls")).elements;
const plot = /** @type {any} */ (document.getElementById("plot"));
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
/** Sizes, ascending, of all that a view may draw: what the threshold goes by. @type {Map<string, Float64Array>} */
const sizes = new Map();

/** @type {State} */
const state = {
  show: "side",
  sort: "position",
  layers: new Set(),
  threshold: 0,
  choice: -1,
  tokens: "",
  oneList: true,
  far: sideOf(atStart()),
  scale: view.look.scale,
  firstToken: view.look.first_token,
};
let theme = view.look.theme === "dark" || matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
/** From where the reader looks at all scenes. */
let turn = atStart();
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
    scenes.forEach((scene, index) => fill(view, state, scene, data.slice(3 * index, 3 * index + 3), theme));
    describe();
    await new Promise(requestAnimationFrame); // the words first: they say how much room is left for the picture
    lay(view, state, scenes, layout, plotSize(), turn, theme);
    layout.template = page.templates[theme];
    await Plotly.react(plot, data, layout, page.config);
  }
  window.stratoscopeReady = true;
}

/** Draw at a size that fits a sheet, at once: what is printed is what stands there when this returns. */
function drawForPrint() {
  const { layout, data } = page.figure;
  const root = document.documentElement.style;
  const { width, height } = printedSize();
  root.setProperty("--printed-width", `${width}px`);
  root.setProperty("--printed-height", `${height}px`);
  paint("light"); // paper is white
  scenes.forEach((scene, index) => fill(view, state, scene, data.slice(3 * index, 3 * index + 3), "light"));
  lay(view, state, scenes, layout, { width, height }, turn, "light");
  layout.template = page.templates.light;
  Plotly.react(plot, data, layout, page.config);
  for (const [index, { used }] of scenes.entries()) if (used) plot._fullLayout[sceneName(index)]._scene.glplot.redraw();
}

/** Upright sheets of A4 and Letter have this width within their margins. */
function printedSize() {
  const count = Math.max(scenes.filter((scene) => scene.used).length, 1);
  return { width: PRINTED.width, height: Math.min(Math.max(PRINTED.lowest, LOWEST * rowsFor(count, PRINTED.width).rows), PRINTED.highest) };
}

/** The size of the picture; scenes above each other need a higher one. */
function plotSize() {
  const count = Math.max(scenes.filter((scene) => scene.used).length, 1);
  document.documentElement.style.setProperty("--lowest", `${LOWEST * rowsFor(count, plot.clientWidth).rows}px`);
  return { width: plot.clientWidth, height: Math.max(plot.clientHeight, 1) };
}

let turning = false;
/** Look from another side, in the next frame. @param {Turn} next */
function turnTo(next) {
  turn = next;
  if (turning) return;
  turning = true;
  requestAnimationFrame(async () => {
    if (drawing) await drawing;
    const far = sideOf(turn);
    if (far.x !== state.far.x || far.y !== state.far.y || far.lean !== state.far.lean) {
      state.far = far;
      turning = false;
      return draw();
    }
    const { layout } = page.figure;
    lay(view, state, scenes, layout, plotSize(), turn, theme);
    const shown = [...scenes.keys()].filter((index) => scenes[index].used);
    await Plotly.relayout(plot, Object.fromEntries(shown.map((index) => [`${sceneName(index)}.camera`, layout[sceneName(index)].camera])));
    turning = false;
    if (turn !== next) turnTo(turn);
  });
}

// --- words -----------------------------------------------------------------------------------------------------------

function describe() {
  const drawn = scenes.reduce((sum, scene) => sum + scene.points.length, 0);
  const above = page.figure.data.reduce((sum, trace) => sum + (trace.marker?.symbol ?? []).filter((kind) => kind === "diamond-open").length, 0);
  element("count").textContent = countWords(drawn);
  element("above").textContent = above ? `${grouped(String(above))} beyond the scale (◇).` : "";
  element("filters").textContent = filterWords();
  element("height-words").hidden = state.show === "difference";
  element("show-words").textContent = showWords();
  element("scale-words").textContent = scaleOf(view, state).words;
  element("empty").hidden = drawn > 0;
  element("empty").textContent = drawn ? "" : emptyWords();
  element("threshold-value").textContent = state.threshold > 0 ? `≥ ${number(state.threshold)}` : "all";
  element("layers-words").textContent = layerWords();
  const now = notesNow(view, state);
  for (const note of document.querySelectorAll("[data-note]")) note.hidden = !now.includes(Number(note.dataset.note));
  element("first-left-out").hidden = state.firstToken;
  element("one-list").hidden = state.show !== "difference";
  for (const one of controls.scale) {
    one.disabled = state.show === "difference" && !(one.value in view.content.comparison.scales);
    one.title = one.disabled ? "Not for differences: they may be negative, and have no logarithm and no share of a highest peak" : "";
  }
  list();
}

/** @param {number} drawn */
function countWords(drawn) {
  const { total, comparison } = view.content;
  if (state.show !== "difference") return `${grouped(String(drawn))} of ${counted(total, "peak")}.`;
  const alone = scenes.flatMap((scene) => scene.points).filter((point) => comparison.listed[point]).length;
  const named = `${counted(drawn - alone, "neuron")} named in both lists`;
  return `${named}${alone ? `, ${grouped(String(alone))} in one list only` : ""}.`;
}

/** What two prompts that are laid on each other show. */
function showWords() {
  const { comparison } = view.content;
  if (state.show === "side") return "";
  const { a, b } = comparison;
  const columns = columnsOf(view);
  const apart = columns.filter((column) => !column.equal).length;
  const hatched = scenes[0].order.some((column) => !columns[column].equal);
  if (state.show === "overlay") return `${a} and ${b} are aligned: equal tokens stand in one place.`;
  const left = apart ? ` ${counted(apart, "place")} without an equal token in the other prompt ${apart === 1 ? "is" : "are"} ${hatched ? "hatched" : "left out"}.` : "";
  const alone = state.oneList
    ? ` ○ is in one list only, ${b}'s above zero and ${a}'s below, at its own height: absent from a list is not zero, so its difference is not known.`
    : " A neuron in one list only has no known difference and is left out.";
  return `Height: ${b} − ${a} of the same neuron, layer and aligned token. A description, not a test.${left}${alone}`;
}

/** What the controls leave out, for the caption. */
function filterWords() {
  const { layers, choices } = view.content;
  const words = [];
  if (state.choice >= 0) words.push(choices[state.choice]);
  if (state.tokens.trim()) words.push(`tokens ${soughtWords()}`);
  if (state.layers.size < layers.length) words.push(layerWords());
  if (state.threshold > 0) words.push(`${state.show === "difference" ? "differing by" : "at least"} ${number(state.threshold)}${state.show === "difference" ? " or more" : " high"}`);
  return words.length ? `Shown: ${words.join(", ")}.` : "";
}

/** What the reader looks for among the tokens, in words. */
function soughtWords() {
  const { runs, part } = sought(state.tokens);
  return runs ? `at ${state.tokens.trim()}` : `with "${part}"`;
}

/** Why nothing is drawn: what leaves nothing by itself, else all that is set. */
function emptyWords() {
  const matches = matching(view.tokens, state.tokens);
  const here = (match, token) => match && (state.choice < 0 || view.content.token_choice[token] === state.choice);
  if (!state.layers.size) return "No layer is picked: pick some under Layers.";
  if (matches && !matches.some(here)) {
    const where = sought(state.tokens).runs ? soughtWords().replace("at", "at position") : soughtWords();
    return `No token ${where}: change or clear Tokens.`;
  }
  const ways = [];
  if (state.threshold > 0) ways.push("lower the threshold");
  if (state.layers.size < view.content.layers.length) ways.push("pick more layers");
  if (matches) ways.push("look for other tokens");
  if (state.show === "difference" && !state.oneList) ways.push("show what is in one list only");
  return ways.length ? `Nothing is left: ${ways.join(", or ")}.` : "Nothing can be compared here.";
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

/** The highest of what is drawn, as a table. */
function list() {
  const { token, layer, value, difference } = { ...view.content, ...view.content.comparison, token: view.content.token };
  const { text, position, prompt, prompts, first } = view.tokens;
  const source = sourceOf(view, state);
  const isDifference = state.show === "difference";
  const counts = (point) =>
    (state.firstToken || !first[token[source.peak(point)]]) && !(isDifference && view.content.comparison.listed[point]);
  const found = scenes.flatMap((scene) => scene.points.filter(counts));
  const top = found.sort((a, b) => source.size(b) - source.size(a) || a - b).slice(0, LISTED);
  const rows = top.map((point) => {
    const peak = source.peak(point);
    const of = token[peak];
    const cells = [
      [tokenLabel(text[of])],
      [legible(prompts[prompt[of]].id)],
      [position[of], "number"],
      [`L${layer[peak]}`, "number"],
      [neuronName(view, peak), "number"],
      [number(value[peak]), "number"],
      [isDifference ? signed(difference[point]) : number(source.size(point)), "number"],
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
  element("highest-size").textContent = isDifference ? `${view.content.comparison.b} − ${view.content.comparison.a}` : view.content.quantity.label;
}

// --- controls --------------------------------------------------------------------------------------------------------

/** The state is what the controls say, also after a reload that keeps them, or a reset. */
function read() {
  state.sort = controls.sort.value;
  state.scale = controls.scale.value;
  state.firstToken = controls.first.checked;
  const choice = controls.choice?.value ?? "-1";
  state.show = choice === "overlay" || choice === "difference" ? choice : "side";
  state.choice = state.show === "side" ? Number(choice) : -1;
  state.tokens = controls.tokens.value;
  state.oneList = controls.onelist?.checked ?? true;
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

/** The slider hides a share of what is drawn: each step hides as many, whatever their heights. */
function thresholdAt(share) {
  const source = sourceOf(view, state);
  const of = state.show === "difference" ? "differences" : "peaks";
  if (!sizes.has(of)) sizes.set(of, Float64Array.from({ length: source.count }, (_, point) => source.size(point)).sort());
  const heights = /** @type {Float64Array} */ (sizes.get(of));
  return share <= 0 ? 0 : heights[Math.min(Math.floor(share * heights.length), heights.length - 1)];
}

function connect() {
  const form = element("controls");
  form.addEventListener("input", (event) => ([controls.from, controls.to].includes(event.target) ? pickRange() : update()));
  form.addEventListener("reset", () => {
    turn = atStart();
    state.far = sideOf(turn);
    setTimeout(update); // the controls have their first values only after this event
  });
  controls.all.addEventListener("click", () => pick(() => true));
  controls.none.addEventListener("click", () => pick(() => false));
  controls.image.addEventListener("click", save);
  controls.theme.addEventListener("click", () => {
    theme = theme === "dark" ? "light" : "dark";
    paint(theme);
    draw();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && closeCards(null));
  document.addEventListener("pointerdown", (event) => closeCards(event.target));
  new ResizeObserver(relay).observe(plot);
  addEventListener("beforeprint", drawForPrint);
  addEventListener("afterprint", () => {
    paint(theme);
    draw();
  });
  turnable(main, () => turn, turnTo);
}

/** Close the open cards, but not the one that the event is in. */
function closeCards(target) {
  for (const card of document.querySelectorAll("details[open]")) {
    if (card.contains(target)) continue;
    if (card.contains(document.activeElement)) card.querySelector("summary").focus();
    card.open = false;
  }
}

/** Give the page the colours of a theme. @param {string} shown */
function paint(shown) {
  document.documentElement.dataset.theme = shown;
  for (const [name, colour] of Object.entries(view.colours.themes[shown])) {
    document.documentElement.style.setProperty(`--${name}`, colour);
  }
  controls.theme.textContent = theme === "dark" ? "Light" : "Dark";
}

let waiting = 0;
let laid = "";
/** Draw anew where the picture has another size; a caption that becomes longer leaves it less. */
function relay() {
  const size = `${plot.clientWidth} ${plot.clientHeight}`;
  if (size === laid) return;
  laid = size;
  clearTimeout(waiting);
  waiting = setTimeout(draw, 60);
}

/** Save the picture as a PNG with its title and caption. */
function save() {
  const size = { width: plot.clientWidth, height: plot.clientHeight };
  const caption = [...document.querySelectorAll("footer p")].flatMap((line) => wrapped(line.innerText, size.width / 6.4));
  const [above, below] = [40, 16 * caption.length + 14];
  const layout = structuredClone(page.figure.layout);
  layout.margin = { l: 0, r: 0, t: above, b: below };
  layout.title = { text: escaped(document.title), x: 0.01, xanchor: "left", y: 1, yanchor: "top", pad: { t: 12 } };
  layout.annotations.push({
    ...{ xref: "paper", yref: "paper", x: 0.01, y: 0, yshift: -4, xanchor: "left", yanchor: "top", align: "left" },
    ...{ text: caption.map(escaped).join("<br>"), showarrow: false, font: { size: 11 } },
  });
  const image = { format: "png", filename: nameOfPage(), width: size.width, height: size.height + above + below, scale: 2 };
  return Plotly.downloadImage({ data: page.figure.data, layout, config: page.config }, image);
}

/** The name of this file, for those that come from it. */
function nameOfPage() {
  const name = decodeURIComponent(location.pathname.split("/").pop() ?? "");
  return name.replace(/\.html?$/i, "") || "peaks3d";
}

paint(theme);
connect();
update();
