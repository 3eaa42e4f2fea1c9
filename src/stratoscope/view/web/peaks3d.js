// The controls of the peaks3d page. How high each peak stands, on every scale, is in the page's view; this only selects,
// orders and places it. `view/peaks3d/traces.py` draws the same picture for notebooks.
"use strict";

/** @typedef {spec.ViewSpec & { content: spec.Peaks }} PeaksView */
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

// --- choosing, ordering ----------------------------------------------------------------------------------------------

/** Whether a peak is drawn. */
function visible(view, state, peak) {
  const { token, layer, height, token_choice } = view.content;
  return (
    height[peak] >= state.threshold &&
    state.layers.has(layer[peak]) &&
    (state.choice < 0 || token_choice[token[peak]] === state.choice)
  );
}

/**
 * The scenes with what is drawn in them.
 * @returns {Scene[]}
 */
function arrange(view, state) {
  const { token, token_scene, token_place } = view.content;
  const scenes = view.content.scenes.map(() => ({ peaks: [], place: new Map(), order: [] }));
  for (let peak = 0; peak < token.length; peak++) {
    if (visible(view, state, peak)) scenes[token_scene[token[peak]]].peaks.push(peak);
  }
  for (const scene of scenes) {
    scene.order = ordered(view, state, scene.peaks);
    scene.order.forEach((one, rank) => scene.place.set(one, state.sort === "position" ? token_place[one] : rank));
  }
  return scenes;
}

/** Tokens of the given peaks in reading order, by text, or by their highest drawn peak. */
function ordered(view, state, peaks) {
  const { token, height, token_rank } = view.content;
  /** @type {Map<number, number>} */
  const activity = new Map();
  for (const peak of peaks) activity.set(token[peak], Math.max(activity.get(token[peak]) ?? 0, height[peak]));
  const tokens = [...activity.keys()].sort((a, b) => a - b);
  if (state.sort === "text") tokens.sort((a, b) => token_rank[a] - token_rank[b]);
  if (state.sort === "activity") tokens.sort((a, b) => activity.get(b) - activity.get(a) || a - b);
  return tokens;
}

/**
 * How high the peaks stand on the chosen scale.
 * @param {PeaksView} view
 * @param {State} state
 */
function heightsOf(view, state) {
  return view.content.scales[state.scale].heights[state.firstToken ? "with_first" : "without_first"];
}

/**
 * The places, among the notes of a view, of those that hold for what is looked at; as `ViewSpec.notes_now`.
 * @param {spec.ViewSpec} view
 * @param {{ scale: string, firstToken: boolean }} state
 */
function notesNow(view, { scale, firstToken }) {
  const holds = ({ scales, first_token }) =>
    (!scales.length || scales.includes(scale)) && (first_token ?? firstToken) === firstToken;
  return [...view.notes.keys()].filter((place) => holds(view.notes[place]));
}

// --- traces ----------------------------------------------------------------------------------------------------------

/** The three traces of a scene: stems, peaks, borders between prompts. */
function fill(view, state, scene, traces) {
  const [stems, peaks, borders] = traces;
  const { token, layer, highest, style } = view.content;
  const { place, beyond, times: ratios, floor, ceiling, low, high } = heightsOf(view, state);
  const ratio = new Map(Array.from(beyond, (peak, index) => [peak, ratios[index]]));
  const drawn = { x: [], y: [], z: [], size: [], symbol: [], hover: [] };
  const tops = []; // [x, layer, z] of the highest peak of each token and layer
  const lowestFirst = [...scene.peaks].sort((one, other) => place[one] - place[other]); // as they are painted
  for (const peak of lowestFirst) {
    const [x, z] = [scene.place.get(token[peak]), place[peak]];
    const share = Math.min(Math.max((z - floor) / (ceiling - floor), 0), 1);
    const isBeyond = ratio.has(peak);
    drawn.x.push(x);
    drawn.y.push(layer[peak]);
    drawn.z.push(z);
    drawn.size.push(style.smallest + (style.largest - style.smallest) * Math.sqrt(share));
    drawn.symbol.push(isBeyond ? "diamond-open" : "circle");
    drawn.hover.push(hover(view, peak, isBeyond ? `<br>${times(ratio.get(peak))} the top of the scale` : ""));
    if (highest[peak]) tops.push([x, layer[peak], z]);
  }
  Object.assign(stems, stemsOf(tops, floor, style.stems));
  Object.assign(peaks, { x: drawn.x, y: drawn.y, z: drawn.z, customdata: drawn.hover });
  peaks.marker.line = { ...peaks.marker.line, color: drawn.z, cmin: low, cmax: high };
  peaks.marker = { ...peaks.marker, color: drawn.z, size: drawn.size, symbol: drawn.symbol };
  Object.assign(borders, bordersOf(view, state, scene, floor));
}

/** Lines from the floor to the highest peaks. */
function stemsOf(tops, floor, most) {
  const least = tops.length > most ? tops.map((top) => top[2]).sort((a, b) => b - a)[most] : -Infinity;
  const lines = { x: [], y: [], z: [] };
  for (const [x, layer, z] of tops) {
    if (z <= least) continue;
    lines.x.push(x, x, null);
    lines.y.push(layer, layer, null);
    lines.z.push(floor, z, null);
  }
  return lines;
}

/** What the card of a peak says; fields as in `traces.hover_template`. */
function hover(view, peak, words) {
  const { token, layer, value, write } = view.content;
  const { text, position, prompt, prompts } = view.tokens;
  const of = token[peak];
  return [
    escaped(text[of]),
    position[of],
    escaped(prompts[prompt[of]].id),
    neuronName(view, peak),
    number(value[peak]),
    number(write[peak] ?? NaN),
    layer[peak],
    words,
  ];
}

/** A neuron's number, with that of its expert where it has one; as `neuron_name` in traces.py. */
function neuronName(view, peak) {
  const { expert, neuron } = view.content;
  return expert[peak] >= 0 ? `${neuron[peak]} of expert ${expert[peak]}` : neuron[peak];
}

/** Lines on the floor between the prompts of a scene, while tokens stand in reading order. */
function bordersOf(view, state, scene, floor) {
  const { layers, token_place } = view.content;
  const { prompt } = view.tokens;
  const lines = { x: [], y: [], z: [] };
  if (state.sort !== "position") return lines;
  scene.order.forEach((token, index) => {
    if (!index || prompt[token] === prompt[scene.order[index - 1]]) return;
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
