// Where the scenes of a peaks3d page stand and what their axes say.
"use strict";

/**
 * @typedef {Object} Size
 * @property {number} width
 * @property {number} height
 */
/**
 * @typedef {Object} Grid
 * @property {number} columns
 * @property {number} rows
 * @property {number} wide width of the box of a scene; its depth is 1
 * @property {number} tall its height
 */

const BAR = 84; // pixels at the right for the bar of colours
const NARROWEST = 330; // pixels of a scene
const LOWEST = 330; // pixels of a row of scenes
const PER_LAYER = 60; // pixels of the height of a scene for each label of a layer: those at the back stand close
const PER_LETTER = 18; // pixels of the height of a scene for each letter of a line along the vertical axis
const PER_LABEL = 34; // pixels along the axis of tokens; of few tokens all are labelled

/** Plotly's name of a scene. @param {number} index */
function sceneName(index) {
  return index ? `scene${index + 1}` : "scene";
}

/** Rows and columns for so many scenes in a window so wide. */
function rowsFor(count, width) {
  let columns = count === 4 ? 2 : Math.min(count, 3);
  while (columns > 1 && (width - BAR) / columns < NARROWEST) columns--;
  return { columns, rows: Math.ceil(count / columns) };
}

/** Rows, columns, and the shape of the boxes (the depth is 1). */
function gridOf(count, size) {
  const { columns, rows } = rowsFor(count, size.width);
  const [width, height] = [(size.width - BAR) / columns, size.height / rows];
  const wide = between(1, (1.25 * width) / height, 2.4);
  return { columns, rows, wide, tall: tallest(wide, width, height) };
}

/** Places, axes and limits of the scenes that are used. */
function lay(view, state, scenes, layout, size, turn, theme) {
  const heights = heightsOf(view, state);
  const { title } = scaleOf(view, state);
  const shown = [...scenes.keys()].filter((index) => scenes[index].used);
  const grid = gridOf(Math.max(shown.length, 1), size);
  const wide = Math.max(1 - BAR / size.width, 0.5);
  const camera = cameraFor(grid, { ...size, width: size.width * wide }, turn);
  const tall = size.height / grid.rows;
  Object.assign(layout, { width: size.width, height: size.height });
  scenes.forEach((scene, index) => {
    const place = shown.indexOf(index);
    const name = sceneName(index);
    const words = layout.annotations[index];
    words.visible = place >= 0;
    if (place < 0) {
      layout[name].domain = { x: [0, 0.001], y: [0, 0.001] };
      return;
    }
    const domain = domainOf(place, grid, wide);
    layout[name].domain = domain;
    Object.assign(words, { x: domain.x[0] + 0.01, y: domain.y[1], text: sceneWords(view, state, index, theme) });
    const room = Math.floor((size.width * wide) / grid.columns / PER_LABEL);
    Object.assign(layout[name].xaxis, tokenTicks(view, state, scene, Math.min(Math.max(room, 2), 60)));
    const longest = Math.max(...layout[name].xaxis.ticktext.map((label) => label.length), 0);
    layout[name].xaxis.title = { text: `${"\u00a0<br>".repeat(longest > 14 ? 3 : longest > 9 ? 2 : 0)}${tokenTitle(state)}` }; // below long labels
    layout[name].xaxis.tickangle = state.far.lean;
    layout[name].xaxis.range = tokenRange(scene);
    layout[name].aspectratio = { x: grid.wide, y: 1, z: grid.tall };
    layout[name].camera = camera;
    const { floor, ceiling } = heights;
    const { top } = view.content.style;
    layout[name].zaxis.range =
      state.show === "difference" ? [floor * top, ceiling * top] : [floor, floor + (ceiling - floor) * top];
    layout[name].zaxis.title = { text: size.width < 500 ? "" : wrapped(axisTitle(view, state, title), tall / PER_LETTER).join("<br>") }; // the bar of colours has it too
    Object.assign(layout[name].yaxis, layerTicks(view.content, Math.max(Math.floor(tall / PER_LAYER), 3)));
    Object.assign(layout[name].zaxis, axisTicks(heights));
  });
  layBar(view, state, layout, heights, wide, theme);
  layout.annotations[scenes.length] = barTitle(title, state);
}

/** The bar of colours; two prompts laid on each other have one colour each, and none. */
function layBar(view, state, layout, heights, wide, theme) {
  const axis = layout.coloraxis;
  Object.assign(axis, { cmin: heights.low, cmax: heights.high, showscale: state.show !== "overlay" });
  const { colorscale } = page.templates[theme].layout.coloraxis;
  axis.colorscale = state.show === "difference" ? differenceColours(view.colours.themes[theme]) : colorscale;
  Object.assign(axis.colorbar, axisTicks(heights), { x: wide, xanchor: "left", xpad: 2, len: 0.62, y: 0.5 });
  axis.colorbar.title = { text: "" };
  axis.colorbar.tickfont = { size: 11 };
}

/** What stands along the vertical axis: of a difference, what is subtracted; the bar of colours says of what. */
function axisTitle(view, state, title) {
  const { a, b } = view.content.comparison ?? {};
  return state.show === "difference" ? `${b} − ${a}` : title;
}

/** What stands beside the bar of colours, at the edge of the picture: Plotly's own title runs into wide ticks. */
function barTitle(title, state) {
  const at = { xref: "paper", yref: "paper", x: 1, y: 0.5, xshift: -4, xanchor: "right", yanchor: "middle" };
  return { ...at, text: title, textangle: -90, showarrow: false, font: { size: 12 }, visible: state.show !== "overlay" };
}

/** Labels of evenly sampled layers, the first and the last among them; as `figure.layer_ticks`. */
function layerTicks({ layers, style }, room) {
  const last = layers.length - 1;
  const step = Math.ceil(last / (Math.min(room, style.layer_labels) - 1)) || 1;
  const sampled = [...layers].filter((_, index) => index === last || (index % step === 0 && index <= last - step));
  return { tickvals: sampled, ticktext: sampled.map((layer) => `L${layer}`) };
}

/** From one side over next to nothing to the other, as they can be seen on the ground of a theme. @param {spec.Theme} theme */
function differenceColours(theme) {
  return [[0, theme.side_b], [0.5, theme.line], [1, theme.side_a]];
}

/** What stands above a scene, as Plotly reads it. */
function sceneWords(view, state, index, theme) {
  const { scenes, comparison } = view.content;
  if (state.show === "side") {
    const { title, detail } = scenes[index];
    return `<b>${escaped(legible(title))}</b>${detail ? `  ${escaped(legible(detail))}` : ""}`;
  }
  const [one, other] = [comparison.a, comparison.b].map((name) => escaped(legible(name)));
  const [low, high] = sideColours(view.colours, theme);
  const dot = (colour, words) => `<span style="color:${colour}">●</span> <b>${words}</b>`;
  if (state.show === "overlay") return `${dot(low, one)}   ${dot(high, other)}`;
  return `<b>${other} − ${one}</b>${state.oneList ? `  ○ named in one list only: not a difference` : ""}`;
}

function tokenTitle(state) {
  return { position: "token", text: "token, by text", activity: "token, most active first" }[state.sort];
}

/** Ends of the axis of tokens. @param {Scene} scene @returns {[number, number]} */
function tokenRange(scene) {
  const places = [...scene.place.values()];
  const [first, last] = places.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
  return places.length ? [first - 0.6, last + 0.6] : [-0.5, 0.5];
}

const between = (low, value, high) => Math.min(Math.max(value, low), high);

function domainOf(place, { columns, rows }, wide) {
  const [column, row] = [place % columns, Math.floor(place / columns)];
  return { x: [(column / columns) * wide, ((column + 1) / columns) * wide], y: [1 - (row + 1) / rows, 1 - row / rows] };
}

/** Labels of all tokens where they are few, else of as many as there is room for, the first and the last among them. */
function tokenTicks(view, state, scene, room) {
  const few = view.content.style.token_labels;
  const sampled = sample(scene.order, scene.order.length <= few ? few : Math.min(room, few));
  const label = state.show === "side" ? (token) => tokenLabel(view.tokens.text[token]) : columnLabels(view);
  const tickfont = { size: sampled.length > 1.4 * room ? 9 : 11 }; // labels may stand closer before they become small
  return {
    tickvals: sampled.map((one) => scene.place.get(one)),
    ticktext: sampled.map((one) => axisLabel(label(one))),
    tickfont,
  };
}

/** The labels of the columns of two prompts: one text, or both where they differ. */
function columnLabels(view) {
  const columns = columnsOf(view);
  return (column) => {
    const texts = Object.values(columns[column].tokens).map((token) => tokenLabel(view.tokens.text[token]));
    return [...new Set(texts)].join(" | ");
  };
}

/** @param {number[]} items */
function sample(items, most) {
  const count = Math.min(items.length, most);
  if (count < 2) return items.slice(0, count);
  return Array.from({ length: count }, (_, index) => items[Math.round((index * (items.length - 1)) / (count - 1))]);
}

function axisTicks({ ticks }) {
  if (!ticks.length) return { tickmode: "auto", tickvals: undefined, ticktext: undefined };
  return { tickmode: "array", tickvals: ticks.map((tick) => tick[0]), ticktext: ticks.map((tick) => tick[1]) };
}
