// The routes page: what is picked, controls, keys, words. What is drawn and where is computed in `routes.js`.
"use strict";

const view = /** @type {RoutesView} */ (readView(element("stratoscope-view").textContent));
const controls = /** @type {any} */ (element("controls")).elements;
const graphs = graphsOf(view);
const fewest = Number(controls.edges.min);
/**
 * @typedef {Object} Panel what is drawn of a graph
 * @property {Graph} graph
 * @property {Edge[]} edges
 * @property {HTMLElement} box
 * @property {SVGElement} picture
 * @property {Place[]} places
 * @property {Map<string, SVGElement>} marks of its nodes
 * @property {Map<Edge, SVGElement>} lines of its edges
 */
/** @type {Panel[]} */
let panels = [];
/** @type {{ panel: number, place: Place } | null} */
let picked = null;
let theme = view.look.theme === "dark" || matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

const LISTED = 12; // edges in the list that stands where no node is picked

/** @param {string} id @returns {any} */
function element(id) {
  return document.getElementById(id);
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function draw() {
  const shown = chosenGraphs();
  const most = Number(controls.edges.value);
  const wanted = { most, carry: controls.carry.checked };
  const parts = shown.map((graph) => ({ graph, edges: shownEdges(graph, wanted) }));
  const used = new Set(parts.flatMap(({ graph, edges }) => [graph.end, ...edges.flatMap(({ from, to }) => [from, to])].map((place) => place.column)));
  const runs = runsOf(shown[0].panel, used);
  element("panels").className = shown.length > 1 ? "two" : "";
  const room = roomFor(shown.length);
  const longest = Math.max(...shown.flatMap(({ columns }) => runs.map(({ column }) => columns[column]?.words.length ?? 0)));
  panels = parts.map(({ graph, edges }, index) => panelOf(graph, edges, frameOf(runs, graph.end.depth + 1, room, longest), index));
  element("panels").replaceChildren(...panels.map(({ box }) => box));
  for (const { box } of panels) moved(/** @type {HTMLElement} */ (box.querySelector(".grid")));
  describe(most);
  if (picked && !panels[picked.panel]?.marks.has(placeKey(picked.place))) picked = null;
  showPicked();
  window.stratoscopeReady = true;
}

/** Pixels for the picture of a panel. @param {number} count */
function roomFor(count) {
  const beside = matchMedia("(min-width: 1000px)").matches;
  const wide = element("panels").clientWidth / (beside ? count : 1);
  const other = ["header", "form", "footer"].reduce((sum, name) => sum + /** @type {any} */ (document.querySelector(name)).offsetHeight, 0);
  return { width: wide - ROW_LABELS - (beside ? 18 : 10), height: Math.max(innerHeight - other - 60, 320) };
}

/** @param {Graph} graph @param {Edge[]} edges @param {Frame} frame @param {number} index @returns {Panel} */
function panelOf(graph, edges, frame, index) {
  const drawnEdges = edges.map((edge) => ({ edge, ...edgeMark(frame, edge, view.content.widest) }));
  const places = placesOf(graph, edges);
  const joined = new Set(edges.filter(({ kind }) => kind === ATTENTION).flatMap(({ from, to }) => [placeKey(from), placeKey(to)]));
  const marks = new Map(places.map((place) => [placeKey(place), markOf(graph, frame, place, joined.has(placeKey(place)))]));
  const name = `${graph.panel.title}: arrow keys go from node to node, Enter picks one, Escape lets go`;
  const size = { width: frame.width, height: frame.height };
  const layers = [drawnEdges.map(({ line }) => line), headNames(drawnEdges, places, frame), drawnEdges.map(({ grab }) => grab), [...marks.values()]];
  const groups = layers.map((layer) => drawn("g", {}, ...layer));
  const picture = drawn("svg", { ...size, role: "group", "aria-label": name }, hatching(), ...ground(frame, graph), ...groups);
  const grid = document.createElement("div");
  grid.className = "grid";
  grid.append(rowLabels(frame, graph.end.depth + 1), picture);
  const box = document.createElement("section");
  box.className = "panel";
  const heading = said("h2", legible(graph.panel.title));
  if (graph.panel.detail) heading.append(said("span", `  ${legible(graph.panel.detail)}`));
  if (graphs.length > 1) box.append(heading); // of one prompt the page has a title
  box.append(grid);
  for (const { edge, grab } of drawnEdges) {
    grab.addEventListener("pointerenter", (event) => light(index, [edge], event));
    grab.addEventListener("pointermove", (event) => placeTip(event));
    grab.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && unlight()); // a finger leaves at once
    grab.addEventListener("pointerdown", (event) => light(index, [edge], event));
  }
  for (const place of places) {
    const mark = /** @type {SVGElement} */ (marks.get(placeKey(place)));
    mark.addEventListener("click", () => pick(index, place));
    mark.addEventListener("keydown", (event) => move(event, index, place));
    mark.addEventListener("focus", () => rove(index, place));
  }
  const first = marks.get(placeKey(graph.end)) ?? [...marks.values()][0];
  first?.setAttribute("tabindex", "0");
  return { graph, edges, box, marks, places, picture, lines: new Map(drawnEdges.map(({ edge, line }) => [edge, line])) };
}

/** @param {Graph} graph @param {Frame} frame @param {Place} place @param {boolean} joined whether an edge of a head is */
function markOf(graph, frame, place, joined) {
  const flow = graph.nodes.get(placeKey(place))?.flow || 0; // of a difference not known
  const isEnd = placeKey(place) === placeKey(graph.end);
  const radius = Math.min(2.4 + 4 * Math.sqrt(flow), frame.row / 2 - 1.5);
  const kind = isEnd ? "end" : !place.depth ? "start" : joined ? "" : "through";
  return nodeMark(frame, place, {
    radius: isEnd ? Math.max(radius, 5) : joined || !place.depth ? radius : 1.4,
    kind,
    words: placeWords(graph, place) + (flow ? `, ${percent(flow)}` : ""),
  });
}

// --- words -----------------------------------------------------------------------------------------------------------

/** A picture that is wider than its room begins at its end, where the way ends. @param {HTMLElement} grid */
function moved(grid) {
  grid.scrollLeft = grid.scrollWidth;
}

/** @param {number} most */
function describe(most) {
  const shown = panels.map(({ graph }) => graph);
  const key = {
    ofDifference: shown.some(({ panel }) => panel.sides),
    hasMlps: panels.some(({ edges }) => edges.some(({ kind }) => kind === MLP)),
    isHatched: shown.some(({ columns }) => columns.some(({ unmatched }) => unmatched)),
  };
  element("key").replaceChildren(...keyOf(key, view.content.called), said("span", widthWords()));
  const words = shown.map((graph) => coveredWords(graph, most));
  const fewer = shown.filter(({ heads, panel }) => heads > most && !panel.sides);
  element("shares").textContent = fewer.length ? "Shares of nodes and edges are those with all edges of the file." : "";
  element("edges-words").textContent = shown.length === 1 ? words[0] : `${counted(most, "edge")} each`;
  element("count").textContent = shown.length === 1 ? `${words[0]}.` : `${shown.map((graph, index) => `${graph.panel.title}: ${words[index]}`).join("; ")}.`;
  for (const [index, { graph, box }] of panels.entries()) {
    if (shown.length < 2) continue;
    box.querySelector("p.covered")?.remove();
    box.querySelector("h2")?.after(said("p", words[index], "covered"));
  }
}

/** How wide an edge is drawn. */
function widthWords() {
  const { weight, widest } = view.content;
  return `Width: size of the ${weight.label}, the widest ${weightText(widest)}${weight.unit === "1" ? "" : ` ${weight.unit}`}.`;
}

/** @param {Graph} graph @param {number} most */
function coveredWords(graph, most) {
  const count = Math.min(most, graph.heads);
  const covered = graph.panel.covered_by[count - 1];
  return counted(count, "edge") + (covered === undefined || Number.isNaN(covered) ? "" : `, ${percent(covered)} covered`);
}

/** @param {number} index @param {Edge[]} edges @param {PointerEvent} event */
function light(index, edges, event) {
  const { picture, lines, marks, graph } = panels[index];
  unlight();
  picture.classList.add("dim");
  for (const edge of edges) {
    lines.get(edge)?.classList.add("lit");
    for (const place of [edge.from, edge.to]) marks.get(placeKey(place))?.classList.add("lit");
  }
  if (!event) return;
  const [edge] = edges;
  const tip = element("tip");
  const way = said("p", "");
  way.append(said("strong", carrier(edge)), `  ${wayWords(graph, edge)}`);
  tip.replaceChildren(way, ...worthWords(graph, edge).map((words) => said("p", words)));
  tip.hidden = false;
  placeTip(event);
}

/** @param {PointerEvent} event */
function placeTip({ clientX, clientY }) {
  const tip = element("tip");
  const { offsetWidth: width, offsetHeight: height } = tip;
  tip.style.left = `${between(8, clientX + 14, innerWidth - width - 8)}px`;
  tip.style.top = `${clientY + 18 + height > innerHeight ? clientY - height - 12 : clientY + 18}px`;
}

function unlight() {
  element("tip").hidden = true;
  for (const { picture } of panels) {
    picture.classList.remove("dim");
    for (const one of picture.querySelectorAll(".lit")) one.classList.remove("lit");
  }
  if (picked) lightPicked();
}

// --- a node ----------------------------------------------------------------------------------------------------------

/** @param {number} panel @param {Place} place */
function pick(panel, place) {
  picked = { panel, place };
  showPicked();
  const mark = panels[panel].marks.get(placeKey(place));
  mark?.focus();
  mark?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function letGo() {
  const from = picked && panels[picked.panel]?.marks.get(placeKey(picked.place));
  picked = null;
  showPicked();
  from?.focus();
}

function showPicked() {
  for (const { marks } of panels) for (const mark of marks.values()) mark.classList.remove("picked");
  unlight();
  const card = element("card");
  card.className = picked ? "" : "empty";
  card.replaceChildren(...(picked ? cardOf(panels[picked.panel], picked.place) : emptyCard()));
  if (picked) panels[picked.panel].marks.get(placeKey(picked.place))?.classList.add("picked");
}

function lightPicked() {
  const { panel, place } = /** @type {{ panel: number, place: Place }} */ (picked);
  const { edges, picture, marks, lines } = panels[panel];
  const key = placeKey(place);
  picture.classList.add("dim");
  marks.get(key)?.classList.add("lit");
  for (const edge of edges.filter(({ from, to }) => placeKey(from) === key || placeKey(to) === key)) {
    lines.get(edge)?.classList.add("lit");
    for (const end of [edge.from, edge.to]) marks.get(placeKey(end))?.classList.add("lit");
  }
}

/** @returns {Node[]} */
function emptyCard() {
  const way = matchMedia("(pointer: coarse)").matches ? "Tap" : "Click";
  const help = `${way} a node (or Tab to the picture, arrow keys, Enter) for its edges and its neurons. Point at an edge for its head.`;
  const lists = panels.flatMap(({ graph, edges }, index) => {
    const heads = edges.filter(({ kind }) => kind === ATTENTION).sort((a, b) => (b.flow || sizeOf(b)) - (a.flow || sizeOf(a)));
    const rows = heads.slice(0, LISTED).map((edge) => {
      const what = document.createElement("span");
      what.append(said("span", "", `sign ${edgeClass(edge)}`), `${headName(edge)}: ${wayWords(graph, edge)}`);
      const flow = graph.panel.sides || Number.isNaN(edge.flow) ? [] : [percent(edge.flow)];
      return { cells: [what, weightWords(graph, edge), ...flow], go: () => pick(index, edge.to) };
    });
    const title = panels.length > 1 ? `Strongest edges of ${legible(graph.panel.title)}` : "Strongest edges";
    return [said("h3", title), cardTable(["", "weight", ...(graph.panel.sides ? [] : [flowTitle()])], rows)];
  });
  return [said("p", help, "faint"), ...lists];
}

/** @param {Panel} panel @param {Place} place @returns {Node[]} */
function cardOf({ graph, edges }, place) {
  const key = placeKey(place);
  const { flow, rest } = graph.nodes.get(key) ?? { flow: NaN, rest: NaN };
  const close = said("button", "Close", "close");
  close.addEventListener("click", letGo);
  /** @type {Node[]} */
  const parts = [close, said("h2", placeWords(graph, place))];
  const through = isTowards() ? "is of edges that lead into it" : "runs through it";
  if (!Number.isNaN(flow)) parts.push(said("p", `${percent(flow)} of ${view.content.whole} ${through}.`));
  const known = graph.edges.filter((edge) => edge.kind !== REST && (edge.kind !== ATTENTION || edges.includes(edge)));
  const into = known.filter(({ to }) => placeKey(to) === key);
  const out = known.filter(({ from, kind }) => placeKey(from) === key && kind !== MLP);
  const [mlps, others] = [true, false].map((isMlp) => into.filter(({ kind }) => (kind === MLP) === isMlp));
  if (place.depth) parts.push(...edgeList(graph, isTowards() ? "In" : "In: what the stream behind attention is made of", others, "from"));
  if (mlps.length) parts.push(...edgeList(graph, "The MLP's part of the stream behind the layer", mlps, "from"));
  const lost = isTowards() ? "is of edges into it that are not drawn" : "is lost from view here, in what is not drawn";
  if (place.depth && rest > 0) parts.push(said("p", `${percent(rest)} of ${view.content.whole} ${lost}.`, "faint"));
  if (placeKey(graph.end) !== key) parts.push(...edgeList(graph, "Out: where it goes", out, "to"));
  if (place.depth) parts.push(...neuronList(graph, place));
  return parts;
}

/** @param {Graph} graph @param {string} title @param {Edge[]} edges @param {"from" | "to"} side */
function edgeList(graph, title, edges, side) {
  if (!edges.length) return [said("h3", title), said("p", "No edge of it is drawn.", "faint")];
  const { panel } = /** @type {{ panel: number }} */ (picked);
  const rows = [...edges].sort((a, b) => sizeOf(b) - sizeOf(a)).map((edge) => {
    const what = document.createElement("span");
    what.append(said("span", "", `sign ${edgeClass(edge)}`), edgeWords(graph, edge, side));
    const flow = Number.isNaN(edge.flow) ? "" : percent(edge.flow);
    return { cells: [what, weightWords(graph, edge), ...(graph.panel.sides ? [] : [flow])], go: edge[side].column < 0 ? undefined : () => pick(panel, edge[side]) };
  });
  return [said("h3", title), cardTable(["", "weight", ...(graph.panel.sides ? [] : [flowTitle()])], rows)];
}

/** The weight of an edge; of a difference that is not known, the one that is. @param {Graph} graph @param {Edge} edge */
function weightWords({ called }, { weight, sides }) {
  if (sides && Number.isNaN(weight)) {
    const [name, known] = Number.isNaN(sides.b) ? [called[0], sides.a] : [called[1], sides.b];
    return `${legible(name)}: ${signedWeight(known)}`;
  }
  return Number.isNaN(weight) ? "" : signedWeight(weight);
}

/** @param {Graph} graph @param {Place} place @returns {Node[]} */
function neuronList(graph, place) {
  const { node } = graph.nodes.get(placeKey(place)) ?? { node: -1 };
  const found = neuronsAt(graph.panel, node);
  if (!found || node < 0) return [];
  const title = `Strongest neurons of the MLP of L${place.depth - 1} here`;
  if (!found.length) return [said("h3", title), said("p", "None is recorded.", "faint")];
  const hasValues = found.some(({ value }) => !Number.isNaN(value));
  const rows = found.map(({ name, value, size, promotes }) => {
    const what = document.createElement("span");
    what.append(name);
    if (promotes) what.append(said("span", ` promotes ${legible(promotes)}`, "faint"));
    return { cells: [what, ...(hasValues ? [signedNumber(value)] : []), hasValues ? number(size) : signedNumber(size)] };
  });
  return [said("h3", title), cardTable(["", ...(hasValues ? ["activation"] : []), graph.panel.neurons?.size_label ?? ""], rows)];
}

// --- keys ------------------------------------------------------------------------------------------------------------

/** @type {Record<string, number[]>} */
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @param {KeyboardEvent} event @param {number} index @param {Place} place */
function move(event, index, place) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    pick(index, place);
    return;
  }
  const { places, marks, graph } = panels[index];
  const step = STEPS[event.key];
  const next = step ? nearest(places, place, step) : { Home: places[0], End: graph.end }[event.key];
  if (!step && !next) return;
  event.preventDefault();
  if (next) marks.get(placeKey(next))?.focus();
}

/**
 * The nearest node in a direction: in the same row or column if there is one, else in the nearest.
 * @param {Place[]} places @param {Place} from @param {number[]} step
 */
function nearest(places, from, [across, up]) {
  const away = (/** @type {Place} */ one) => ({
    along: (one.column - from.column) * across + (one.depth - from.depth) * up,
    aside: Math.abs(across ? one.depth - from.depth : one.column - from.column),
  });
  const ahead = places.map((place) => ({ place, ...away(place) })).filter(({ along }) => along > 0);
  return ahead.sort((a, b) => a.aside - b.aside || a.along - b.along)[0]?.place;
}

/** The one node of a panel that Tab goes to is the last one that had the focus. @param {number} index @param {Place} place */
function rove(index, place) {
  for (const [key, mark] of panels[index].marks) mark.setAttribute("tabindex", key === placeKey(place) ? "0" : "-1");
}

// --- controls --------------------------------------------------------------------------------------------------------

function connect() {
  const form = element("controls");
  form.addEventListener("input", (/** @type {Event} */ event) => {
    if (event.target === controls.choice) fitSlider();
    draw();
  });
  form.addEventListener("reset", () => {
    picked = null;
    setTimeout(() => (fitSlider(), draw())); // the controls have their first values only after this event
  });
  controls.theme.addEventListener("click", () => paint(theme === "dark" ? "light" : "dark"));
  document.addEventListener("pointerdown", ({ target }) => target instanceof Element && !target.closest(".grab") && unlight());
  document.addEventListener("keydown", (event) => event.key === "Escape" && (element("tip").hidden ? letGo() : unlight()));
  let width = innerWidth;
  let height = innerHeight;
  addEventListener("resize", () => {
    if (innerWidth === width && Math.abs(innerHeight - height) < 120) return; // a phone's address bar comes and goes
    [width, height] = [innerWidth, innerHeight];
    draw();
  });
}

/** The slider ends at all edges of what is shown. */
function fitSlider() {
  const most = Math.max(...chosenGraphs().map(({ heads }) => heads), 1);
  Object.assign(controls.edges, { min: Math.min(fewest, most), max: most, value: most });
}

/** Give the page the colours of a theme. @param {string} shown */
function paint(shown) {
  theme = shown;
  const root = document.documentElement;
  root.dataset.theme = theme;
  for (const [name, colour] of Object.entries(view.colours.themes[theme])) if (name !== "name") root.style.setProperty(`--${name}`, colour);
  controls.theme.textContent = theme === "dark" ? "Light" : "Dark";
}

/** The graphs that the reader chose. */
function chosenGraphs() {
  const choice = controls.choice?.value ?? "0";
  return choice === "both" ? graphs.slice(0, 2) : [graphs[Number(choice)]];
}

paint(theme);
connect();
fitSlider();
draw();
