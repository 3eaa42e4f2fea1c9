// The picture of the routes page as SVG: columns of tokens, rows of depths, edges from below to above.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const ROW_LABELS = 34; // pixels beside the grid
const MOST_NAMES = 14; // heads that are named in a panel

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {(string | Node)[]} inside
 */
function drawn(name, attributes, ...inside) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, String(value));
  one.append(...inside);
  return one;
}

/**
 * The labels of the rows, which stay where the picture is moved.
 * @param {Frame} frame
 * @param {number} depths
 */
function rowLabels(frame, depths) {
  const texts = labelledDepths(depths, frame.row).map((depth) =>
    drawn("text", { class: "row", x: ROW_LABELS - 6, y: frame.y(depth) + 4 }, `D${depth}`),
  );
  return drawn("svg", { class: "rows", width: ROW_LABELS, height: frame.height, "aria-hidden": "true" }, ...texts);
}

/**
 * Ground of a panel: lines of depths and columns, hatched where this prompt has no equal token, labels below.
 * @param {Frame} frame
 * @param {Graph} graph
 */
function ground(frame, graph) {
  const depths = graph.end.depth + 1;
  const top = frame.y(depths - 1) - frame.row / 2;
  const parts = labelledDepths(depths, frame.row).map((depth) =>
    drawn("line", { class: "guide", x1: 0, x2: frame.width, y1: frame.y(depth), y2: frame.y(depth) }),
  );
  for (const { column, tokens, left, width } of frame.slots) {
    const box = { x: left, y: top, width, height: frame.bottom - top };
    const middle = left + width / 2;
    if (column < 0) {
      parts.push(drawn("rect", { class: "band", ...box }));
      parts.push(turned("fold", middle, frame.bottom + 8, `⋯ ${grouped(String(tokens))}`, counted(tokens, "token")));
      continue;
    }
    const { words, unmatched } = graph.columns[column];
    if (unmatched) parts.push(drawn("rect", { class: "gap", ...box }));
    parts.push(turned("token", middle, frame.bottom + 8, words));
  }
  return parts;
}

/** A label that is read from below. @param {string} kind @param {number} x @param {number} y @param {string} words @param {string} [whole] */
function turned(kind, x, y, words, whole) {
  const one = drawn("text", { class: kind, transform: `translate(${x + 4} ${y}) rotate(-60)` }, words);
  if (whole) one.append(drawn("title", {}, whole));
  return one;
}

/** The pattern of what is not there. */
function hatching() {
  const line = drawn("path", { class: "hatch-line", d: "M0 6L6 0" });
  return drawn("defs", {}, drawn("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, line));
}

/**
 * An edge, and what a pointer finds of it: a line, or of an MLP a square on its token's stream.
 * @param {Frame} frame
 * @param {Edge} edge
 * @param {number} widest weight of an edge that is drawn as wide as any
 */
function edgeMark(frame, edge, widest) {
  const looks = { class: `edge ${edgeClass(edge)}`, opacity: opacityOf(edge) };
  if (edge.kind === MLP) {
    const size = Math.min(9, 0.6 * frame.row, 3 + 9 * Math.sqrt(Math.min(sizeOf(edge), 1)));
    const box = (/** @type {number} */ side) => {
      const [x, y] = [frame.x.get(edge.to.column) ?? 0, frame.y(edge.to.depth - 0.58)];
      return { x: x - side / 2, y: y - side / 2, width: side, height: side };
    };
    return { line: drawn("rect", { ...looks, ...box(size) }), grab: drawn("rect", { class: "grab square", ...box(12) }) };
  }
  const d = lineOf(frame, edge);
  return { line: drawn("path", { ...looks, d, "stroke-width": widthOf(edge, widest).toFixed(2) }), grab: drawn("path", { class: "grab", d }) };
}

/** The less runs through it, the fainter. @param {Edge} edge */
function opacityOf({ flow, sides }) {
  return sides || Number.isNaN(flow) ? 0.85 : (0.25 + 0.75 * Math.min(1, Math.sqrt(flow / 0.1))).toFixed(2);
}

/** Pixels. @param {Edge} edge @param {number} widest */
function widthOf(edge, widest) {
  if (edge.kind === CARRY) return edge.sides || Number.isNaN(edge.weight) ? 1 : Math.max(0.7, 2.1 * Math.min(1.5, Math.abs(edge.weight)));
  return Math.max(0.7, 6.5 * Math.min(sizeOf(edge) / widest, 1));
}

/** How an edge looks. @param {Edge} edge */
function edgeClass({ kind, weight, sides }) {
  const shape = kind === MLP ? "mlp " : "";
  if (kind === CARRY) return "carry";
  if (sides && Number.isNaN(weight)) return `${shape}${Number.isNaN(sides.b) ? "only a" : "only b"}`;
  return shape + (weight < 0 ? "minus" : "plus");
}

/**
 * Names of heads, as `L5 h3`, on the edges through which most runs, wherever one finds a place; as in the figure.
 * @param {{ edge: Edge, line: SVGElement }[]} marks
 * @param {Place[]} places nodes, on which none lies
 * @param {Frame} frame
 */
function headNames(marks, places, frame) {
  const heads = marks.filter(({ edge }) => edge.kind === ATTENTION && edge.from.column !== edge.to.column);
  const strongest = heads.sort((a, b) => (b.edge.flow || sizeOf(b.edge)) - (a.edge.flow || sizeOf(a.edge)));
  const joined = new Set(marks.flatMap(({ edge }) => (edge.kind === ATTENTION ? [placeKey(edge.from), placeKey(edge.to)] : [])));
  /** @type {{ x: number, y: number, wide: number }[]} */
  const taken = places.filter((place) => joined.has(placeKey(place)))
    .map(({ column, depth }) => ({ x: frame.x.get(column) ?? 0, y: frame.y(depth), wide: 8 }));
  const names = [];
  for (const { edge, line } of strongest.slice(0, 3 * MOST_NAMES)) {
    if (names.length === MOST_NAMES) break;
    const words = headName(edge);
    const wide = 6 * words.length + 6;
    const curve = /** @type {SVGPathElement} */ (line);
    const length = curve.getTotalLength();
    for (const share of length > 2 * wide ? [0.5, 0.35, 0.65, 0.2, 0.8] : []) {
      const { x, y } = curve.getPointAtLength(share * length);
      if (x < wide / 2 || x > frame.width - wide / 2) continue;
      if (taken.some((one) => Math.abs(one.x - x) < (one.wide + wide) / 2 && Math.abs(one.y - y) < 12)) continue;
      taken.push({ x, y, wide });
      names.push(drawn("text", { class: `head ${edgeClass(edge)}`, x, y: y + 3.5 }, words));
      break;
    }
  }
  return names;
}

/**
 * @param {Frame} frame
 * @param {Place} place
 * @param {{ radius: number, kind: string, words: string }} look
 */
function nodeMark(frame, place, { radius, kind, words }) {
  const [cx, cy] = [frame.x.get(place.column) ?? 0, frame.y(place.depth)];
  return drawn(
    "g",
    { class: `node ${kind}`, role: "button", tabindex: -1, "aria-label": words, "data-node": placeKey(place) },
    drawn("circle", { class: "reach", cx, cy, r: Math.max(radius + 3, 8) }),
    drawn("circle", { class: "dot", cx, cy, r: radius.toFixed(1) }),
  );
}

/**
 * What colours and strokes mean.
 * @param {{ ofDifference: boolean, hasMlps: boolean, isHatched: boolean }} shown
 * @param {string[]} called
 */
function keyOf({ ofDifference, hasMlps, isHatched }, called) {
  const [one, other] = called.map((name) => legible(name));
  const lines = ofDifference
    ? [["plus", `more in ${other}`], ["minus", `less in ${other}`], ["only a", `of ${one}: no counterpart, or recorded there only`], ["only b", `of ${other}: the same`]]
    : [["plus", "a head adds"], ["minus", "takes away"], ["carry", "the token's own stream"]];
  const found = lines.map(([kind, words]) => keyEntry(drawn("path", { class: `edge ${kind}`, d: "M1 6H27", "stroke-width": kind === "carry" ? 1.6 : 3 }), words));
  if (hasMlps) found.push(keyEntry(drawn("rect", { class: "edge mlp plus", x: 10, y: 2, width: 8, height: 8 }), "MLP"));
  if (isHatched) found.push(keyEntry(drawn("rect", { class: "gap", width: 28, height: 12 }), "no equal token in the other prompt"));
  return found;
}

/** @param {Element} mark @param {string} words */
function keyEntry(mark, words) {
  const entry = document.createElement("span");
  entry.append(drawn("svg", { width: 28, height: 12, "aria-hidden": "true" }, mark), words);
  return entry;
}
