// From where the scenes of a peaks3d page are seen: a turntable that is always upright and seen from above.
"use strict";

/**
 * @typedef {Object} Turn
 * @property {number} azimuth radians about the vertical axis
 * @property {number} elevation radians above the floor
 * @property {number} zoom 1 = the box fills its place
 * @property {[number, number]} shift how far the picture is moved to the right and upwards, as a share of its place
 */

const START = { azimuth: -1.27, elevation: 0.48 };
const ELEVATIONS = [0.05, 1.4]; // the floor is never seen from below, and up stays up
const ZOOMS = [0.5, 6];
const DRAG = { azimuth: Math.PI, elevation: Math.PI / 2 }; // of a drag across the whole picture
const FIELD = Math.PI / 4; // of view of Plotly's camera
const TALL = [0.6, 1.7]; // heights of a box, its depth being 1
const KEY = 0.12; // radians of a key
const MARGIN = { left: 60, right: 40, top: 26, bottom: 74 }; // pixels of a scene that are kept for labels

/** @returns {Turn} */
function atStart() {
  return { ...START, zoom: 1, shift: [0, 0] };
}

/** Which walls stand behind the points, and how labels of tokens lean so that they do not lie along their axis. */
function sideOf({ azimuth, elevation }) {
  const slope = (Math.cos(azimuth) * Math.sin(elevation)) / Math.sin(azimuth); // of the axis of tokens, upwards
  const lean = Math.abs(slope) > 2 ? 0 : slope > 0 ? 50 : -50;
  return { x: Math.cos(azimuth) < 0, y: Math.sin(azimuth) < 0, lean };
}

/**
 * The nearest camera that sees the whole box from the chosen side and leaves room for labels.
 * @param {Grid} grid
 * @param {Size} size
 * @param {Turn} turn
 */
function cameraFor({ columns, rows, wide, tall }, size, { azimuth, elevation, zoom, shift }) {
  const [width, height] = [size.width / columns, size.height / rows];
  const { forward, right, up, distance: away, centre } = fittingCamera({ wide, tall }, width, height, azimuth, elevation);
  const distance = away / zoom;
  const view = Math.tan(FIELD / 2);
  const moved = [(-2 * view * width * distance * shift[0]) / height, -2 * view * distance * shift[1]];
  const [x, y, z] = centre.map((part, axis) => part + moved[0] * right[axis] + moved[1] * up[axis]);
  const [ex, ey, ez] = [x, y, z].map((part, axis) => part - forward[axis] * distance);
  return { eye: { x: ex, y: ey, z: ez }, center: { x, y, z }, up: { x: 0, y: 0, z: 1 } };
}

/** How far away a camera in a direction must be to see a whole box, and what it looks at. */
function fittingCamera({ wide, tall }, width, height, azimuth, elevation) {
  const corners = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => [(x * wide) / 2, y / 2, (z * tall) / 2])));
  const flat = Math.cos(elevation);
  const forward = [-Math.cos(azimuth) * flat, -Math.sin(azimuth) * flat, -Math.sin(elevation)];
  const right = unit(cross(forward, [0, 0, 1]));
  const up = cross(right, forward);
  const view = Math.tan(FIELD / 2);
  const pixel = (2 * view) / height;
  const left = height < 380 ? MARGIN.left + 20 : MARGIN.left;
  const [across, upwards] = [view * (width / height), view];
  const room = {
    right: [-across + left * pixel, across - MARGIN.right * pixel],
    up: [-upwards + MARGIN.bottom * pixel, upwards - MARGIN.top * pixel],
  };
  const depth = corners.map((corner) => dot(corner, forward));
  const sides = [
    { room: room.right, across: corners.map((corner) => dot(corner, right)) },
    { room: room.up, across: corners.map((corner) => dot(corner, up)) },
  ];
  const needed = sides.map((side) => nearest(side, depth));
  const distance = Math.max(...needed);
  const offsets = sides.map((side) => fitting(side, depth, distance) ?? 0);
  const centre = [0, 1, 2].map((axis) => offsets[0] * right[axis] + offsets[1] * up[axis]);
  return { forward, right, up, distance, centre, needed };
}

/** How near the camera may come until corners are lost on one of two sides. */
function nearest(side, depth) {
  let distance = 0.3 - Math.min(...depth);
  while (distance < 20 && fitting(side, depth, distance) === null) distance *= 1.01;
  return distance;
}

/** The highest box that is as wide as its place, seen from where the picture starts. */
function tallest(wide, width, height) {
  const fits = (tall) => {
    const [across, upwards] = fittingCamera({ wide, tall }, width, height, START.azimuth, START.elevation).needed;
    return upwards <= across;
  };
  let tall = TALL[0];
  while (tall < TALL[1] && fits(tall + 0.05)) tall += 0.05;
  return tall;
}

/**
 * How far the camera has to move sideways so that all corners are seen within a room, or null where they cannot be.
 * @param {{ room: number[], across: number[] }} side
 * @param {number[]} depth
 */
function fitting({ room, across }, depth, distance) {
  // a corner is seen at (across − offset) / (depth + distance): each end of the room is a bound of the offset
  const deep = depth.map((one) => one + distance);
  const least = Math.max(...across.map((one, corner) => one - room[1] * deep[corner]));
  const most = Math.min(...across.map((one, corner) => one - room[0] * deep[corner]));
  return least <= most ? (least + most) / 2 : null;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((part) => part / Math.hypot(...a));

/** The turn after a drag by so many pixels. @param {Turn} turn @param {Size} size */
function dragged(turn, across, down, size, moves) {
  const [right, below] = [across / size.width, down / size.height];
  if (moves) return { ...turn, shift: [turn.shift[0] + right, turn.shift[1] - below] };
  const elevation = between(ELEVATIONS[0], turn.elevation + below * DRAG.elevation, ELEVATIONS[1]);
  return { ...turn, azimuth: turn.azimuth - right * DRAG.azimuth, elevation };
}

/** @param {Turn} turn */
function zoomed(turn, factor) {
  return { ...turn, zoom: between(ZOOMS[0], turn.zoom * factor, ZOOMS[1]) };
}

/** The turn after a key, or null where the key means nothing. @param {Turn} turn @param {string} key */
function afterKey(turn, key) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (key === "+" || key === "=") return zoomed(turn, 1.15);
  if (key === "-") return zoomed(turn, 1 / 1.15);
  if (key === "Home") return atStart();
  if (!(key in steps)) return null;
  const [across, up] = steps[key];
  const elevation = between(ELEVATIONS[0], turn.elevation + up * KEY, ELEVATIONS[1]);
  return { ...turn, azimuth: turn.azimuth + across * KEY, elevation };
}

/**
 * Let pointer, wheel and keys turn the scenes in an element.
 * @param {HTMLElement} element
 * @param {() => Turn} current
 * @param {(turn: Turn) => void} turnTo
 */
function turnable(element, current, turnTo) {
  /** @type {Map<number, { x: number, y: number }>} */
  const down = new Map();
  element.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  addEventListener("pointermove", (event) => {
    const from = down.get(event.pointerId);
    if (!from) return;
    const to = { x: event.clientX, y: event.clientY };
    const size = { width: element.clientWidth, height: element.clientHeight };
    const moves = event.shiftKey || (event.buttons & 6) > 0;
    if (down.size === 2) {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at.x - other.x, at.y - other.y);
      turnTo(zoomed(current(), apart(to) / Math.max(apart(from), 1)));
    } else {
      turnTo(dragged(current(), to.x - from.x, to.y - from.y, size, moves));
    }
    down.set(event.pointerId, to);
  });
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => down.delete(/** @type {PointerEvent} */ (event).pointerId));
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener(
    "wheel",
    (event) => {
      const pageScrolls = document.documentElement.scrollHeight > innerHeight + 1;
      if (pageScrolls && !event.ctrlKey) return;
      event.preventDefault();
      turnTo(zoomed(current(), Math.exp(-between(-60, event.deltaY, 60) / 500)));
    },
    { passive: false },
  );
  element.addEventListener("keydown", (event) => {
    const turn = afterKey(current(), event.key);
    if (!turn) return;
    event.preventDefault();
    turnTo(turn);
  });
}
