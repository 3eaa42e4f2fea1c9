// The traces of a scene of the peaks3d page: stems, points, and lines on the floor and at the limits.
"use strict";

const APART = 0.17; // of a column: how far two prompts that are laid on each other stand to either side

/** The colours of two prompts laid on each other: those of the ends of the difference. */
function sideColours(colours, theme) {
  const { side_a: high, side_b: low } = colours.themes[theme];
  return [low, high];
}

/** Fill the three traces of a scene. */
function fill(view, state, scene, traces, theme) {
  const [stems, peaks, borders] = traces;
  const { token, token_scene, layer, highest, style, comparison } = view.content;
  const source = sourceOf(view, state);
  const { place, beyond, times: ratios, floor, ceiling, high } = heightsOf(view, state);
  const [overlay, difference] = [state.show === "overlay", state.show === "difference"];
  const strength = difference ? (point) => Math.abs(place[point]) : (point) => place[point];
  const [base, reach] = difference ? [0, ceiling] : [floor, ceiling - floor];
  const sides = sideColours(view.colours, theme);
  const ratio = new Map(Array.from(beyond, (point, index) => [point, ratios[index]]));
  const drawn = { x: [], y: [], z: [], size: [], symbol: [], hover: [], colour: [] };
  const tops = new Map(); // of each place and layer (and prompt) the strongest: [x, layer, z]
  const lowestFirst = [...scene.points].sort((one, other) => strength(one) - strength(other)); // as they are painted
  for (const point of lowestFirst) {
    const peak = source.peak(point);
    const of = token[peak];
    const side = overlay ? token_scene[of] : 0;
    const [x, z] = [scene.place.get(source.bearing(of)) + (overlay ? APART * (2 * side - 1) : 0), place[point]];
    const share = Math.min(Math.max((difference ? Math.abs(z) : z - base) / reach, 0), 1);
    const alone = difference && comparison.listed[point] > 0;
    const times_ = ratio.has(point) ? `<br>${times(ratio.get(point))} the top of the scale` : "";
    drawn.x.push(x);
    drawn.y.push(layer[peak]);
    drawn.z.push(z);
    drawn.size.push(style.smallest + (style.largest - style.smallest) * Math.sqrt(share));
    drawn.symbol.push(ratio.has(point) ? "diamond-open" : alone ? "circle-open" : "circle");
    drawn.colour.push(overlay ? sides[side] : alone ? Math.sign(z) * high : z);
    drawn.hover.push(difference ? differenceHover(view, point, times_) : hover(view, peak, times_));
    if (difference ? !alone : highest[peak]) tops.set(difference ? `${x} ${layer[peak]}` : point, [x, layer[peak], z]);
  }
  Object.assign(stems, stemsOf([...tops.values()], base, style.stems));
  Object.assign(peaks, { x: drawn.x, y: drawn.y, z: drawn.z, customdata: drawn.hover });
  peaks.marker = { ...peaks.marker, color: drawn.colour, size: drawn.size, symbol: drawn.symbol };
  peaks.marker.line = { width: 0, color: drawn.colour }; // what is open is drawn by its line in some browsers
  for (const one of [peaks.marker, peaks.marker.line]) {
    if (overlay) delete one.coloraxis;
    else one.coloraxis = "coloraxis";
  }
  peaks.hovertemplate = difference ? DIFFERENCE_CARD : (peaks.hovertemplateOfPeaks ??= peaks.hovertemplate);
  Object.assign(borders, lines(view, state, scene));
}

/** Lines from the floor, or from zero, to the highest points. */
function stemsOf(tops, base, most) {
  const size = (top) => Math.abs(top[2] - base);
  const least = tops.length > most ? tops.map(size).sort((a, b) => b - a)[most] : -Infinity;
  const lines = { x: [], y: [], z: [] };
  for (const top of tops) {
    if (size(top) <= least) continue;
    const [x, layer, z] = top;
    lines.x.push(x, x, null);
    lines.y.push(layer, layer, null);
    lines.z.push(base, z, null);
  }
  return lines;
}

/** What the card of a peak says; fields as in `traces.hover_template`. */
function hover(view, peak, words) {
  const { token, layer, value, write } = view.content;
  const { text, position, prompt, prompts } = view.tokens;
  const of = token[peak];
  return [
    escaped(tokenLabel(text[of])),
    position[of],
    escaped(legible(prompts[prompt[of]].id)),
    neuronName(view, peak),
    number(value[peak]),
    number(write[peak] ?? NaN),
    layer[peak],
    words,
  ];
}

const DIFFERENCE_CARD = "%{customdata}<extra></extra>";

/** What the card of a difference says. */
function differenceHover(view, point, words) {
  const { token, layer, value, height, index, quantity, comparison } = view.content;
  const { a, b, peak: peaks, listed, difference } = comparison;
  const peak = peaks[point];
  const of = token[peak];
  const [one, other] = [a, b].map((name) => escaped(legible(name)));
  const head = `<b>${escaped(tokenLabel(view.tokens.text[of]))}</b><br>position ${view.tokens.position[of]}`;
  const neuron = `L${layer[peak]} · ${index} ${neuronName(view, peak)}`;
  if (listed[point]) {
    const [there, not] = listed[point] === 1 ? [one, other] : [other, one];
    const only = `${number(height[peak])} in the list of ${there};<br>not in that of ${not}: the difference is not known`;
    return `${head} in ${there}<br>${neuron}<br>${only}${words}`;
  }
  const known = quantity.name === "peak_write" ? height[peak] : value[peak];
  const inB = view.content.token_scene[of] === 1;
  const [first, second] = inB ? [known - difference[point], known] : [known, known + difference[point]];
  const told = `${other} − ${one}: ${signed(difference[point])}<br>${one} ${number(first)}, ${other} ${number(second)}`;
  return `${head} in ${inB ? other : one}<br>${neuron}<br>${told}${words}`;
}

/** @param {number} value */
function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** A neuron's number, with that of its expert where it has one; as `neuron_name` in traces.py. */
function neuronName(view, peak) {
  const { expert, neuron } = view.content;
  return expert[peak] >= 0 ? `${neuron[peak]} of expert ${expert[peak]}` : neuron[peak];
}

/** Lines between prompts while tokens stand in reading order, at the limits of the colours, and where nothing is compared. */
function lines(view, state, scene) {
  const { layers, token_place } = view.content;
  const { prompt } = view.tokens;
  const { floor, ceiling, low, high } = heightsOf(view, state);
  const [front, back] = [layers[0] - 0.5, layers[layers.length - 1] + 0.5];
  const drawn = { x: [], y: [], z: [] };
  const add = (points) => {
    for (const [x, y, z] of [...points, [null, null, null]]) {
      drawn.x.push(x);
      drawn.y.push(y);
      drawn.z.push(z);
    }
  };
  if (state.show === "side" && state.sort === "position") {
    scene.order.forEach((token, index) => {
      if (!index || prompt[token] === prompt[scene.order[index - 1]]) return;
      const edge = token_place[token] - 0.5;
      add([[edge, front, floor], [edge, back, floor]]);
    });
  }
  const inside = 0.02; // a line on the edge of the box is cut off
  const [left, right] = [tokenRange(scene)[0] + inside, tokenRange(scene)[1] - inside];
  const [first, last] = [front + inside, back - inside];
  const [far, near] = state.far.x ? [right, left] : [left, right];
  const [behind, before] = state.far.y ? [last, first] : [first, last];
  const limit = (z) => add([[near, behind, z], [far, behind, z], [far, before, z]]); // on the walls at the back
  if (high < ceiling) limit(high);
  if (state.show !== "difference") return drawn;
  if (high < ceiling) limit(low);
  add([[left, first, 0], [left, last, 0], [right, last, 0], [right, first, 0], [left, first, 0]]);
  const columns = columnsOf(view);
  for (const column of scene.order) {
    if (columns[column].equal) continue;
    const x = /** @type {number} */ (scene.place.get(column));
    const steps = 2 * Math.ceil((back - front) / 1.2);
    const zigzag = Array.from({ length: steps + 1 }, (_, step) => {
      return [x + (step % 2 ? 0.4 : -0.4), front + ((back - front) * step) / steps, 0];
    });
    add(zigzag);
  }
  return drawn;
}

/** @param {string} text */
function escaped(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  return text.replace(/[&<>"']/g, (char) => entities[char]);
}
