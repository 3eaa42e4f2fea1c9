// The controls of the peaks3d page. Everything shown is in the page's view (JSON and named buffers); this only selects,
// orders and scales it. `view/plotly3d.py` draws the same picture for notebooks.
"use strict";

/**
 * @typedef {Object} Limits
 * @property {number} floor
 * @property {number} ceiling
 * @property {[number, number]} colour
 * @property {[number, string][]} ticks
 * @property {[number, number][]} [tops] block number and height, of the per-layer scale
 */
/**
 * @typedef {Object} State
 * @property {"position" | "text" | "activity"} sort
 * @property {Set<number>} layers
 * @property {number} threshold lowest height that is drawn
 * @property {number} choice class (or prompt) that is drawn, -1 = all
 * @property {string} scale
 * @property {boolean} firstToken whether first tokens take part in the scale
 */
/**
 * @typedef {Object} Scene
 * @property {number[]} peaks drawn peaks of the scene, in order of token, layer and height (highest first)
 * @property {Map<number, number>} place token → where it stands
 * @property {number[]} order tokens in the order in which they stand
 */

// --- reading the view ------------------------------------------------------------------------------------------------

/**
 * The view that `ViewSpec.to_bytes` wrote: a header line, the length of the JSON, the JSON, little-endian buffers.
 * @param {string} base64
 */
function readView(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const start = bytes.indexOf(10) + 1;
  const length = Number(new DataView(bytes.buffer).getBigUint64(start, true));
  const body = start + 8 + length;
  const view = JSON.parse(new TextDecoder().decode(bytes.subarray(start + 8, body)));
  const arrays = { "<i4": Int32Array, "<f4": Float32Array, "<f8": Float64Array, "|u1": Uint8Array };
  /** @type {Record<string, Int32Array | Float32Array | Float64Array | Uint8Array>} */
  const buffers = {};
  for (const [name, entry] of Object.entries(view.buffers)) {
    buffers[name] = new arrays[entry.dtype](bytes.buffer.slice(body + entry.offset), 0, entry.shape[0]);
  }
  return { ...view, buffers };
}

// --- choosing, ordering, scaling -------------------------------------------------------------------------------------

/** Whether a peak is drawn. */
function visible(view, state, peak) {
  const { peak_token, peak_layer, peak_height, token_choice } = view.buffers;
  return (
    peak_height[peak] >= state.threshold &&
    state.layers.has(peak_layer[peak]) &&
    (state.choice < 0 || token_choice[peak_token[peak]] === state.choice)
  );
}

/**
 * The scenes with what is drawn in them.
 * @returns {Scene[]}
 */
function arrange(view, state) {
  const { peak_token, token_scene, token_place } = view.buffers;
  const scenes = view.content.scenes.map(() => ({ peaks: [], place: new Map(), order: [] }));
  for (let peak = 0; peak < peak_token.length; peak++) {
    if (visible(view, state, peak)) scenes[token_scene[peak_token[peak]]].peaks.push(peak);
  }
  for (const scene of scenes) {
    scene.order = ordered(view, state, scene.peaks);
    scene.order.forEach((token, rank) => scene.place.set(token, state.sort === "position" ? token_place[token] : rank));
  }
  return scenes;
}

/** Tokens of the given peaks in reading order, by text, or by their highest drawn peak. */
function ordered(view, state, peaks) {
  const { peak_token, peak_height, token_rank } = view.buffers;
  /** @type {Map<number, number>} */
  const activity = new Map();
  for (const peak of peaks) {
    const token = peak_token[peak];
    activity.set(token, Math.max(activity.get(token) ?? 0, peak_height[peak]));
  }
  const tokens = [...activity.keys()].sort((a, b) => a - b);
  if (state.sort === "text") tokens.sort((a, b) => token_rank[a] - token_rank[b]);
  if (state.sort === "activity") tokens.sort((a, b) => activity.get(b) - activity.get(a) || a - b);
  return tokens;
}

/** @returns {Limits} */
function limitsOf(view, state) {
  return view.content.levels[state.scale][state.firstToken ? "with_first" : "without_first"];
}

/** Level of a height; `peaks3d_levels.level` computes the same. */
function levelOf(state, limits) {
  if (state.scale === "log") return (height) => Math.log10(Math.max(height, 1e-300));
  if (state.scale !== "per-layer") return (height) => height;
  const tops = new Map(limits.tops);
  return (height, layer) => height / tops.get(layer);
}

// --- traces ----------------------------------------------------------------------------------------------------------

/** The three traces of a scene: stems, peaks, borders between prompts. */
function fill(view, state, scene, traces) {
  const [stems, peaks, borders] = traces;
  const { peak_token, peak_layer, peak_height } = view.buffers;
  const limits = limitsOf(view, state);
  const level = levelOf(state, limits);
  const span = limits.ceiling - limits.floor;
  const [small, large] = view.content.style.sizes;
  const drawn = { x: [], y: [], z: [], colour: [], size: [], symbol: [], hover: [] };
  const tops = []; // [x, layer, z, level] of the highest peak of each token and layer
  let [lastToken, lastLayer] = [-1, -1];
  for (const peak of scene.peaks) {
    const [token, layer] = [peak_token[peak], peak_layer[peak]];
    const value = level(peak_height[peak], layer);
    const above = isAbove(view, limits, value);
    const ratio = state.scale === "log" ? 10 ** (value - limits.ceiling) : value / limits.ceiling;
    const share = Math.min(Math.max((value - limits.floor) / span, 0), 1);
    const [x, z] = [scene.place.get(token), limits.floor + span * (above ? roofOf(view, ratio) : share)];
    drawn.x.push(x);
    drawn.y.push(layer);
    drawn.z.push(z);
    drawn.colour.push(value);
    drawn.size.push(small + (large - small) * Math.sqrt(share));
    drawn.symbol.push(above ? "diamond-open" : "circle");
    drawn.hover.push(hover(view, peak, above ? `<br>${times(ratio)} the top of the scale` : ""));
    if (token === lastToken && layer === lastLayer) continue;
    [lastToken, lastLayer] = [token, layer];
    tops.push([x, layer, z, value]);
  }
  Object.assign(stems, stemsOf(tops, limits.floor, view.content.style.stems));
  Object.assign(peaks, { x: drawn.x, y: drawn.y, z: drawn.z, customdata: drawn.hover });
  const [cmin, cmax] = limits.colour;
  peaks.marker.line = { ...peaks.marker.line, color: drawn.colour, cmin, cmax };
  peaks.marker = { ...peaks.marker, color: drawn.colour, size: drawn.size, symbol: drawn.symbol };
  Object.assign(borders, bordersOf(view, state, scene, limits.floor));
}

/** Lines from the floor to the highest peaks. */
function stemsOf(tops, floor, most) {
  const least = tops.length > most ? tops.map((top) => top[3]).sort((a, b) => b - a)[most] : -Infinity;
  const lines = { x: [], y: [], z: [] };
  for (const [x, layer, z, value] of tops) {
    if (value <= least) continue;
    lines.x.push(x, x, null);
    lines.y.push(layer, layer, null);
    lines.z.push(floor, z, null);
  }
  return lines;
}

/** What the card of a peak says; fields as in `plotly3d.hover_template`. */
function hover(view, peak, words) {
  const { peak_token, peak_layer, peak_value, peak_write, token_position, token_prompt } = view.buffers;
  const token = peak_token[peak];
  return [
    escaped(view.content.labels[token]),
    token_position[token],
    escaped(view.content.prompts[token_prompt[token]]),
    neuronName(view, peak),
    number(peak_value[peak]),
    number(peak_write[peak]),
    peak_layer[peak],
    words,
  ];
}

/** A neuron's number, with that of its expert where it has one; as `neuron_name` in plotly3d_traces.py. */
function neuronName(view, peak) {
  const expert = view.buffers.peak_expert[peak];
  const neuron = view.buffers.peak_neuron[peak];
  return expert < 0 ? neuron : `${neuron} of expert ${expert}`;
}

/** Whether a level is above the ceiling. */
function isAbove(view, limits, value) {
  return value > limits.ceiling + view.content.style.tolerance * (limits.ceiling - limits.floor);
}

/** Where a peak of so many times the ceiling is drawn, as a share of the height. */
function roofOf(view, times) {
  const { roof, rise } = view.content.style;
  return roof + rise * Math.min(Math.log10(Math.max(times, 1)) / 4, 1);
}

/** Lines on the floor between the prompts of a scene, while tokens stand in reading order. */
function bordersOf(view, state, scene, floor) {
  const { token_place, token_prompt } = view.buffers;
  const layers = view.content.layers;
  const lines = { x: [], y: [], z: [] };
  if (state.sort !== "position") return lines;
  scene.order.forEach((token, index) => {
    if (!index || token_prompt[token] === token_prompt[scene.order[index - 1]]) return;
    const edge = token_place[token] - 0.5;
    lines.x.push(edge, edge, null);
    lines.y.push(layers[0] - 0.5, layers[layers.length - 1] + 0.5, null);
    lines.z.push(floor, floor, null);
  });
  return lines;
}

/** @param {string} text */
function escaped(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  return text.replace(/[&<>"']/g, (char) => entities[char]);
}
