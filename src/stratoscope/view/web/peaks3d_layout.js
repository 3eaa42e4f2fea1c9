// Where the scenes of a peaks3d page stand, what their axes say, and from where they are seen.
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

const VIEW = [0.16, -0.86, 0.48]; // where the camera stands, as a direction from the middle of the box
const LABELS = { width: 100, height: 70 }; // pixels of a scene that are kept for labels

/** Plotly's name of a scene. @param {number} index */
function sceneName(index) {
  return index ? `scene${index + 1}` : "scene";
}

/** Places, axes and limits of the scenes that have something in them. */
function lay(view, state, scenes, layout, size, camera) {
  const heights = heightsOf(view, state);
  const shown = scenes.map((scene, index) => index).filter((index) => scenes[index].peaks.length || view.content.choices.length < 2);
  const grid = gridOf(Math.max(shown.length, 1), size);
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
    Object.assign(layout[name].xaxis, tokenTicks(view, scene, labels));
    layout[name].xaxis.title = { text: tokenTitle(state) };
    layout[name].aspectratio = { x: grid.wide, y: 1, z: grid.tall };
    layout[name].camera = camera ?? cameraFor(grid, size);
    const { floor, ceiling } = heights;
    layout[name].zaxis.range = [floor, floor + (ceiling - floor) * view.content.style.top];
    Object.assign(layout[name].zaxis, axisTicks(heights));
  });
  Object.assign(layout.coloraxis, { cmin: heights.low, cmax: heights.high });
  Object.assign(layout.coloraxis.colorbar, axisTicks(heights));
  layout.coloraxis.colorbar.title.text = view.content.scales[state.scale].title;
}

function tokenTitle(state) {
  return { position: "token", text: "token, by text", activity: "token, most active first" }[state.sort];
}

/** Rows and columns for so many scenes, and the shape of their boxes (the depth is 1). */
function gridOf(count, size) {
  const ratio = size.width / size.height;
  let columns = Math.min(count, 3);
  if (count === 4) columns = 2;
  while (columns > 1 && ratio / columns < 0.75) columns--;
  const rows = Math.ceil(count / columns);
  const shape = (ratio * rows) / columns;
  return { columns, rows, wide: between(1, 1.05 * shape, 2.2), tall: between(0.7, 0.95 / shape, 1.1) };
}

/** The nearest camera that sees the whole box and leaves room for labels. */
function cameraFor({ columns, rows, wide, tall }, size) {
  const [width, height] = [size.width / columns, size.height / rows];
  const corners = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => [(x * wide) / 2, y / 2, (z * tall) / 2])));
  const forward = unit(VIEW.map((part) => -part));
  const right = unit(cross(forward, [0, 0, 1]));
  const up = cross(right, forward);
  const view = Math.tan(Math.PI / 8); // half the field of view of Plotly's camera
  const across = view * (width / height) * Math.max(1 - LABELS.width / width, 0.5);
  const upwards = view * Math.max(1 - LABELS.height / height, 0.5);
  let distance = 0.5;
  const fits = (corner) => {
    const deep = dot(corner, forward) + distance;
    return Math.abs(dot(corner, right)) <= deep * across && Math.abs(dot(corner, up)) <= deep * upwards && deep > 0;
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
function tokenTicks(view, scene, most) {
  const sampled = sample(scene.order, most);
  return {
    tickvals: sampled.map((token) => scene.place.get(token)),
    ticktext: sampled.map((token) => view.tokens.text[token].replace(/</g, "<\u200b")), // a tag to the axes otherwise
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
