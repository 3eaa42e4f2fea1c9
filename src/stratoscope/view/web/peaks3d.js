// What the peaks3d page draws: it selects and orders. How high each peak stands, on every scale, is in the page's view;
// `view/peaks3d/traces.py` draws the same picture for notebooks.
"use strict";

/** @typedef {spec.ViewSpec & { content: spec.Peaks }} PeaksView */
/**
 * @typedef {Object} State
 * @property {"side" | "overlay" | "difference"} show prompts side by side, one laid on the other, or one minus the other
 * @property {"position" | "text" | "activity"} sort
 * @property {Set<number>} layers
 * @property {number} threshold lowest height (or size of a difference) that is drawn
 * @property {number} choice class (or prompt) that is drawn, -1 = all
 * @property {string} tokens what the reader looks for among the tokens, "" = all
 * @property {boolean} oneList whether neurons that only one of two lists names are drawn beside differences
 * @property {string} scale
 * @property {{ x: boolean, y: boolean, lean: number }} far whether the walls at the back are those of the last token and the last
 *   layer, and how labels of tokens lean
 * @property {boolean} firstToken whether first tokens take part in the scale
 */
/**
 * @typedef {Object} Source what is drawn: peaks, or differences of peaks
 * @property {number} count
 * @property {(point: number) => number} peak
 * @property {(point: number) => number} size what the threshold and the order by activity go by
 * @property {(token: number) => number} bearing where a token stands: by itself, or in a column of two prompts
 * @property {(token: number) => number} scene
 */
/**
 * @typedef {Object} Scene
 * @property {number[]} points drawn points of the scene, as the source has them
 * @property {Map<number, number>} place bearing → where it stands on the axis
 * @property {number[]} order bearings in the order in which they stand
 * @property {boolean} used whether the scene is part of the picture
 */

/**
 * What the picture draws.
 * @param {PeaksView} view
 * @param {State} state
 * @returns {Source}
 */
function sourceOf(view, state) {
  const { token, token_scene, height, comparison } = view.content;
  const itself = (one) => one;
  if (state.show === "side") {
    const scene = (one) => token_scene[one];
    return { count: token.length, peak: itself, size: (peak) => height[peak], bearing: itself, scene };
  }
  const { column, peak, difference } = comparison;
  const shared = { bearing: (one) => column[one], scene: () => 0 };
  if (state.show === "overlay") return { count: token.length, peak: itself, size: (one) => height[one], ...shared };
  return { count: peak.length, peak: (point) => peak[point], size: (point) => Math.abs(difference[point]), ...shared };
}

/** Whether a point is drawn. */
function visible(view, state, source, matches, point) {
  const { token, layer, token_choice, comparison } = view.content;
  const peak = source.peak(point);
  return (
    source.size(point) >= state.threshold &&
    state.layers.has(layer[peak]) &&
    (state.choice < 0 || token_choice[token[peak]] === state.choice) &&
    (!matches || matches[token[peak]]) &&
    (state.show !== "difference" || state.oneList || !comparison.listed[point])
  );
}

/**
 * What a reader's words mean: positions such as "3, 5-8", else a part of a token, in quotes where it is a number.
 * @param {string} words
 * @returns {{ runs?: number[][], part?: string }}
 */
function sought(words) {
  if (/^\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*$/.test(words)) {
    return { runs: words.split(",").map((run) => run.split("-").map(Number)) };
  }
  return { part: /^\s*"(.+)"\s*$/.exec(words)?.[1] ?? words.trimEnd() };
}

/**
 * Which tokens a reader's words mean.
 * @param {spec.ShownTokens} tokens
 * @param {string} words
 * @returns {boolean[] | null} for each token; null = all
 */
function matching(tokens, words) {
  if (!words.trim()) return null;
  const { runs, part = "" } = sought(words);
  if (runs) return Array.from(tokens.position, (at) => runs.some(([from, to = from]) => at >= from && at <= to));
  const written = part.replace(/ /g, "·").toLowerCase();
  return tokens.text.map((text) => text.toLowerCase().includes(written));
}

/**
 * The scenes with what is drawn in them.
 * @returns {Scene[]}
 */
function arrange(view, state) {
  const { token, scenes: titles } = view.content;
  const source = sourceOf(view, state);
  const matches = matching(view.tokens, state.tokens);
  const scenes = titles.map(() => ({ points: [], place: new Map(), order: [], used: false }));
  for (let point = 0; point < source.count; point++) {
    if (!visible(view, state, source, matches, point)) continue;
    scenes[source.scene(token[source.peak(point)])].points.push(point);
  }
  scenes.forEach((scene, index) => {
    scene.used = state.show === "side" ? scene.points.length > 0 || view.content.choices.length < 2 : !index;
    scene.order = ordered(view, state, source, scene.points);
    const placed = placeOf(view, state);
    scene.order.forEach((one, rank) => scene.place.set(one, state.sort === "position" ? placed(one) : rank));
  });
  return scenes;
}

/** Where a bearing stands in reading order. */
function placeOf(view, state) {
  const { token_place } = view.content;
  return state.show === "side" ? (token) => token_place[token] : (column) => column;
}

/** Bearings of the given points in reading order, by text, or by their highest drawn point. */
function ordered(view, state, source, points) {
  const { token, token_rank } = view.content;
  /** @type {Map<number, number>} */
  const activity = new Map();
  /** @type {Map<number, number>} */
  const rank = new Map();
  if (state.show === "difference" && state.sort === "position" && !state.tokens.trim()) {
    return [...columnsOf(view).keys()]; // also those in which nothing is compared
  }
  for (const point of points) {
    const of = token[source.peak(point)];
    const bearing = source.bearing(of);
    activity.set(bearing, Math.max(activity.get(bearing) ?? 0, source.size(point)));
    rank.set(bearing, Math.min(rank.get(bearing) ?? Infinity, token_rank[of]));
  }
  const bearings = [...activity.keys()].sort((a, b) => a - b);
  if (state.sort === "text") bearings.sort((a, b) => rank.get(a) - rank.get(b));
  if (state.sort === "activity") bearings.sort((a, b) => activity.get(b) - activity.get(a) || a - b);
  return bearings;
}

/**
 * The places of two prompts that are laid on each other: the token of each prompt there, and whether they are equal.
 * @returns {{ tokens: number[], equal: boolean }[]}
 */
function columnsOf(view) {
  const { comparison, token_scene } = view.content;
  /** @type {{ tokens: number[], equal: boolean }[]} */
  const columns = Array.from({ length: comparison.column.reduce((most, one) => Math.max(most, one), -1) + 1 }, () => ({
    tokens: [],
    equal: false,
  }));
  comparison.column.forEach((column, token) => {
    columns[column].tokens[token_scene[token]] = token;
    columns[column].equal = comparison.equal[token] > 0;
  });
  return columns;
}

/**
 * How high the points stand on the chosen scale.
 * @param {PeaksView} view
 * @param {State} state
 */
function heightsOf(view, state) {
  return scaleOf(view, state).heights[state.firstToken ? "with_first" : "without_first"];
}

/** The chosen scale; differences, which may be negative, have no logarithm and no share. */
function scaleOf(view, state) {
  const { scales, comparison } = view.content;
  if (state.show !== "difference") return scales[state.scale];
  return comparison.scales[state.scale] ?? comparison.scales.robust;
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
