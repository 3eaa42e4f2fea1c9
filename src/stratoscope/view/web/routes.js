// What the routes page draws and where: it selects, folds and lays out. Every number of it is in the page's view.
"use strict";

/** @typedef {spec.ViewSpec & { content: spec.Routes }} RoutesView */
/** @typedef {{ column: number, depth: number }} Place a node: a column of the picture, and a place of the residual stream */
/** @typedef {{ column: number, tokens: number }} Run a column, or (−1) a run of so many tokens that are folded */
/** @typedef {Run & { left: number, width: number }} Slot where it stands */
/**
 * @typedef {Object} Graph a panel of the picture, as this page needs it
 * @property {spec.RoutePanel} panel
 * @property {string[]} called what the two prompts of a difference are called
 * @property {Edge[]} edges those of heads first, in the order in which they were chosen
 * @property {number} heads how many edges are of heads
 * @property {Place} end
 * @property {Map<string, { flow: number, rest: number, node: number }>} nodes
 * @property {{ words: string, position: number, unmatched: boolean }[]} columns
 */
/**
 * @typedef {Object} Frame where things stand, in pixels
 * @property {Slot[]} slots
 * @property {Map<number, number>} x column → its middle; none of folded ones
 * @property {(depth: number) => number} y
 * @property {number} width
 * @property {number} height
 * @property {number} bottom where the labels of tokens begin
 * @property {number} row
 */
/**
 * @typedef {Object} Edge
 * @property {Place} from
 * @property {Place} to
 * @property {number} kind
 * @property {number} head −1 = not of attention
 * @property {number} weight signed share; of a difference B − A; NaN where it is known of one prompt only
 * @property {number} flow share of the end's mass that runs through it; NaN where it has none
 * @property {number} beside how many edges before it join the same two nodes
 * @property {Sides | null} sides of a difference
 */
/**
 * @typedef {Object} Sides an edge in two prompts
 * @property {number} a its weight in A; NaN = not recorded
 * @property {number} b
 * @property {number} most where one of them is not recorded: how large its size may be there at most; NaN = not known
 */

const ROUTE_ROOM = { top: 14, right: 44, left: 10, fold: 22, column: [15, 130], row: [14, 60] };
const FEW = { columns: 8, wide: 220 }; // of so few the columns may be as wide

/** @param {Place} place */
const placeKey = ({ column, depth }) => `${column}:${depth}`;

const LEAST_MLP = 0.01; // share of the whole that runs through an MLP which is marked, as in the figure
const [ATTENTION, CARRY, MLP, BIAS, REST] = [0, 1, 2, 3, 4]; // as `edge_kind`

/**
 * The panels of a view.
 * @param {RoutesView} view
 * @returns {Graph[]}
 */
function graphsOf({ content, tokens }) {
  return content.panels.map((panel) => {
    const nodes = new Map();
    panel.node_column.forEach((column, node) => {
      nodes.set(placeKey({ column, depth: panel.node_depth[node] }), { flow: panel.node_flow[node], rest: panel.node_rest[node], node });
    });
    const columns = Array.from({ length: panel.stop - panel.start }, (_, column) => {
      const row = panel.start + column;
      return { words: tokenLabel(tokens.text[row] ?? ""), position: tokens.position[row], unmatched: panel.unmatched[column] > 0 };
    });
    const all = edgesOf(panel);
    const edges = [...all.filter(({ kind }) => kind === ATTENTION), ...all.filter(({ kind }) => kind !== ATTENTION)];
    const heads = edges.filter(({ kind }) => kind === ATTENTION).length;
    return { panel, called: content.called, edges, heads, end: { column: panel.end, depth: content.weight.rows.length - 1 }, nodes, columns };
  });
}

/** @param {spec.RoutePanel} panel @returns {Edge[]} */
function edgesOf(panel) {
  /** @type {Map<string, number>} */
  const joined = new Map();
  return Array.from(panel.edge_kind, (kind, index) => {
    const to = { column: panel.to_column[index], depth: panel.to_depth[index] };
    const from = { column: panel.from_column[index], depth: panel.from_depth[index] };
    const key = `${kind} ${placeKey(from)} ${placeKey(to)}`;
    const beside = joined.get(key) ?? 0;
    joined.set(key, beside + 1);
    const { sides } = panel;
    const of = sides ? { a: sides.a[index], b: sides.b[index], most: sides.most[index] } : null;
    return { from, to, kind, head: panel.head[index], weight: panel.weight[index], flow: panel.flow[index], beside, sides: of };
  });
}

/**
 * The edges that are drawn: the first so many of heads, and the streams and MLPs of the tokens that they reach.
 * @param {Graph} graph
 * @param {{ most: number, carry: boolean }} wanted
 */
function shownEdges({ edges, end, heads, panel }, { most, carry }) {
  const shown = edges.slice(0, Math.min(most, heads));
  const ends = panel.sides ? shown.flatMap(({ from, to }) => [from, to]) : shown.map(({ from }) => from);
  /** @type {Map<number, number>} */
  const height = new Map([[end.column, end.depth]]);
  for (const { column, depth } of ends) height.set(column, Math.max(height.get(column) ?? 0, depth));
  const reached = (/** @type {Edge} */ { to }) => to.depth <= (height.get(to.column) ?? -1);
  const through = (/** @type {Edge} */ { kind, flow }) => (kind === CARRY && carry) || (kind === MLP && !(flow < LEAST_MLP));
  const others = edges.filter((edge) => through(edge) && reached(edge));
  return [...others, ...shown.toReversed()]; // those that were chosen first lie on top
}

/**
 * The nodes that are drawn: where edges of heads begin and end, and what lies below them.
 * @param {Graph} graph
 * @param {Edge[]} edges
 */
function placesOf({ end }, edges) {
  const places = new Map([[placeKey(end), end]]);
  for (const { from, to } of edges) for (const place of [from, to]) if (place.column >= 0) places.set(placeKey(place), place);
  return [...places.values()].sort((a, b) => a.column - b.column || a.depth - b.depth);
}

/**
 * What stands along the axis of tokens: columns in use, what is alone between them, and runs of others, folded.
 * @param {spec.RoutePanel} panel
 * @param {Set<number>} used
 * @returns {Run[]}
 */
function runsOf({ left_out }, used) {
  /** @type {Run[]} */
  const runs = [];
  /** @type {number[]} */
  let hidden = [];
  let tokens = 0;
  left_out.forEach((before, column) => {
    tokens += before;
    if (column < left_out.length - 1 && !used.has(column)) {
      hidden.push(column);
      tokens++;
      return;
    }
    if (tokens) runs.push({ column: tokens === 1 && hidden.length ? hidden[0] : -1, tokens });
    [hidden, tokens] = [[], 0];
    if (column < left_out.length - 1) runs.push({ column, tokens: 1 });
  });
  return runs;
}

/**
 * @param {Run[]} runs
 * @param {number} depths
 * @param {{ width: number, height: number }} room
 * @param {number} longest characters of a label
 * @returns {Frame}
 */
function frameOf(runs, depths, room, longest) {
  const label = between(56, 26 + 5.6 * longest, 170);
  const folds = runs.filter(({ column }) => column < 0).length;
  const [least, usual] = ROUTE_ROOM.column;
  const most = runs.length > FEW.columns ? usual : FEW.wide;
  const wide = room.width - ROUTE_ROOM.left - ROUTE_ROOM.right - folds * ROUTE_ROOM.fold;
  const column = between(least, wide / Math.max(runs.length - folds, 1), most);
  const [lowest, highest] = ROUTE_ROOM.row;
  const row = between(lowest, (room.height - ROUTE_ROOM.top - label) / Math.max(depths, 1), highest);
  const x = new Map();
  let left = ROUTE_ROOM.left;
  const slots = runs.map((run) => {
    const slot = { ...run, left, width: run.column < 0 ? ROUTE_ROOM.fold : column };
    left += slot.width;
    if (run.column >= 0) x.set(run.column, slot.left + slot.width / 2);
    return slot;
  });
  const bottom = ROUTE_ROOM.top + row * depths;
  const y = (/** @type {number} */ depth) => bottom - row * (depth + 0.5);
  return { slots, x, y, width: left + ROUTE_ROOM.right, height: bottom + label, bottom, row };
}

/** How large an edge is drawn. @param {Edge} edge */
function sizeOf({ weight, sides }) {
  if (!sides || !Number.isNaN(weight)) return Math.abs(Number.isNaN(weight) ? 0 : weight);
  return Math.abs(Number.isNaN(sides.b) ? sides.a : sides.b);
}

/** @param {number} low @param {number} value @param {number} high */
const between = (low, value, high) => Math.min(Math.max(value, low), high);

/**
 * Depths with a label: evenly sampled, the first and the last among them.
 * @param {number} depths
 * @param {number} row pixels of one
 */
function labelledDepths(depths, row) {
  const last = depths - 1;
  const step = Math.max(Math.ceil(13 / row), 1);
  return Array.from({ length: depths }, (_, depth) => depth).filter((depth) => depth === last || (depth % step === 0 && depth <= last - step));
}

/**
 * The line of an edge, from below to above.
 * @param {Frame} frame
 * @param {Edge} edge
 */
function lineOf(frame, { from, to, kind, beside }) {
  const [x1, y1, x2, y2] = [frame.x.get(from.column) ?? 0, frame.y(from.depth), frame.x.get(to.column) ?? 0, frame.y(to.depth)];
  const middle = (y1 + y2) / 2;
  if (from.column === to.column) {
    const out = kind === ATTENTION ? 14 + 5 * beside : 0; // a head that brings a token's own value: a bow at its stream
    return `M${x1} ${y1}Q${x1 + out * 2} ${middle} ${x2} ${y2}`;
  }
  const apart = 3.2 * Math.ceil(beside / 2) * (beside % 2 ? 1 : -1);
  const bend = frame.row * 0.75;
  return `M${x1} ${y1}C${x1} ${y1 - bend + apart} ${x2} ${y2 + bend + apart} ${x2} ${y2}`;
}

/**
 * The strongest neurons of the MLP that wrote into a node; null where none are recorded.
 * @param {spec.RoutePanel} panel
 * @param {number} node
 */
function neuronsAt({ neurons }, node) {
  if (!neurons) return null;
  /** @type {{ name: string, value: number, size: number, promotes: string }[]} */
  const found = [];
  neurons.node.forEach((of, index) => {
    if (of !== node) return;
    const expert = neurons.expert[index] < 0 ? "" : `expert ${neurons.expert[index]}, `;
    const [value, size] = [neurons.value[index], neurons.size[index]];
    found.push({ name: `${expert}n${neurons.neuron[index]}`, value, size, promotes: neurons.promotes[index] });
  });
  return found;
}
