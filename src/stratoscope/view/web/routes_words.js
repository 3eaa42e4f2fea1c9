// What the routes page says of an edge and of a node.
"use strict";

/** @param {number} value */
const signedNumber = (value) => (value > 0 ? `+${number(value)}` : number(value));

/** A weight in its unit: a share of the stream, or what is brought to a logit. @param {number} value */
const weightText = (value) => (view.content.weight.unit === "1" ? percent(value) : number(value));

/** @param {number} value */
const signedWeight = (value) => (value > 0 ? `+${weightText(value)}` : weightText(value));

/** What the share of the whole is called that an edge has. */
const flowTitle = () => (isTowards() ? "of all effects" : "runs through");

/** What brings something along an edge. @param {Edge} edge */
function carrier({ kind, head, to }) {
  const layer = `L${to.depth - 1}`;
  if (kind === ATTENTION) return `head ${head} of ${layer}`;
  return ["", "own stream", `MLP of ${layer}`, `biases of attention in ${layer}`, "not shown"][kind];
}

/** A head as pictures call it. @param {Edge} edge */
const headName = ({ from, head }) => `L${from.depth} h${head}`;

/** Where a node is. @param {Graph} graph @param {Place} place */
function placeWords(graph, { column, depth }) {
  const { words, position } = graph.columns[column];
  return `${words} (${position}) ${depth ? `after L${depth - 1}` : "at the embedding"}`;
}

/** A token of a graph. @param {Graph} graph @param {number} column */
function tokenWords(graph, column) {
  const { words, position } = graph.columns[column];
  return `${words} (${position})`;
}

/** From where to where, in words. @param {Graph} graph @param {Edge} edge */
function wayWords(graph, { from, to, kind }) {
  if (kind === ATTENTION) return `${tokenWords(graph, from.column)} → ${tokenWords(graph, to.column)}`;
  return tokenWords(graph, to.column);
}

/** An edge in the list of a node that it leads into ("from") or out of ("to"). @param {Graph} graph @param {Edge} edge @param {"from" | "to"} side */
function edgeWords(graph, edge, side) {
  if (edge.kind !== ATTENTION) return side === "from" ? carrier(edge) : `${carrier(edge)} through L${edge.to.depth - 1}`;
  const token = tokenWords(graph, edge[side].column);
  return side === "from" ? `head ${edge.head} ← ${token}` : `${carrier(edge)} → ${token}`;
}

/** Whether edges are weighed by what they bring to a target: then nothing is passed on, and nothing runs through a node. */
const isTowards = () => view.content.weight.name === "route_effect";

/** What an edge is worth. @param {Graph} graph @param {Edge} edge @returns {string[]} */
function worthWords(graph, edge) {
  const { weight, flow, sides } = edge;
  if (sides) return differenceWords(graph, edge, sides);
  const through = isTowards() ? "" : " runs through it";
  const share = Number.isNaN(flow) ? [] : [`${percent(flow)} of ${view.content.whole}${through}`];
  return [`weight: ${signedWeight(weight)}${ofStream(edge)}`, ...share];
}

/** Of which stream a weight is a share: an MLP writes behind attention. @param {Edge} edge */
function ofStream({ kind }) {
  if (isTowards()) return "";
  return ` of the stream behind ${kind === MLP ? "the layer" : "attention"}`;
}

/** @param {Graph} graph @param {Edge} edge @param {Sides} sides */
function differenceWords({ called, columns }, { from, to, weight }, { a, b, most }) {
  const [one, other] = called.map((name) => legible(name));
  if (!Number.isNaN(weight)) {
    return [`${other} − ${one}: ${signedWeight(weight)}`, `${one} ${signedWeight(a)}, ${other} ${signedWeight(b)}`];
  }
  const [here, there, value] = Number.isNaN(b) ? [one, other, a] : [other, one, b];
  if (columns[from.column].unmatched || columns[to.column].unmatched) {
    return [`${here}: ${signedWeight(value)}`, `${there} has no equal token in its place, so there is nothing to subtract.`];
  }
  const recorded = `recorded in ${here} only: ${signedWeight(value)}`;
  const bound = `at most ${weightText(most)} in size there, of either sign`;
  return [recorded, `not among the recorded edges of ${there}: ${bound}. Its difference is not known.`];
}

/**
 * A table of a card; rows with `go` can be activated.
 * @param {string[]} headings
 * @param {{ cells: (string | Node)[], go?: () => void, edge?: Edge }[]} rows
 * @param {number} words how many of the first columns are words and not numbers
 */
function cardTable(headings, rows, words = 1) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  headings.forEach((heading, index) => {
    const cell = document.createElement("th");
    cell.textContent = heading;
    if (index >= words) cell.className = "number";
    head.append(cell);
  });
  const body = table.createTBody();
  for (const { cells, go } of rows) {
    const row = body.insertRow();
    cells.forEach((content, index) => {
      const cell = row.insertCell();
      cell.append(content);
      if (index >= words) cell.className = "number";
    });
    if (!go) continue;
    row.className = "go";
    row.tabIndex = 0;
    row.addEventListener("click", go);
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      go();
    });
  }
  return table;
}

/** @param {string} tag @param {string} words @param {string} [kind] @returns {HTMLElement} */
function said(tag, words, kind) {
  const one = document.createElement(tag);
  one.textContent = words;
  if (kind) one.className = kind;
  return one;
}
