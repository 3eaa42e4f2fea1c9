// The picture of the routes page as SVG: columns of tokens, rows of depths, edges from below to above.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const ROW_LABELS = 34; // pixels beside the grid

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
 * @param {Frame} frame
 * @param {Edge} edge
 * @param {number} width
 */
function edgeLine(frame, edge, width) {
  const d = lineOf(frame, edge);
  const line = drawn("path", { class: `edge ${edgeClass(edge)}`, d, "stroke-width": width.toFixed(2) });
  return { line, grab: drawn("path", { class: "grab", d }) };
}

/** Pixels. @param {Edge} edge @param {number} widest */
function widthOf(edge, widest) {
  if (edge.kind === CARRY && !edge.sides) return 1.2;
  return 0.7 + 5.3 * Math.min(sizeOf(edge) / widest, 1);
}

/** How an edge looks. @param {Edge} edge */
function edgeClass({ kind, weight, sides }) {
  if (sides && Number.isNaN(weight)) return Number.isNaN(sides.b) ? "only a" : "only b";
  if (kind === CARRY && !sides) return "carry";
  return `${kind === MLP ? "mlp " : ""}${weight < 0 ? "minus" : "plus"}`;
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
