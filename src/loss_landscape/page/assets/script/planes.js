// A plane: colours, cells that have none, lines of equal loss, the way of training.

const kindNow = () => head.kinds[state.kind];
const whenNow = () => [kindNow().when, where()].filter(Boolean).join(" of ");
const planeOf = (moment) => moment.planes[kindNow().kind] ?? null;
const scaleNow = (plane) => (state.shared ? kindNow().scale : plane.scale);

function drawPlanes(quick) {
  for (const slot of state.shown.keys()) drawPlane(slot, quick);
  for (const place of document.querySelectorAll(".plane-read")) place.textContent = kindNow().read;
  for (const place of document.querySelectorAll(".plane-not")) place.textContent = kindNow().cannot_tell;
}

function drawPlane(slot, quick) {
  const id = `plane${slot}`;
  const plane = moments[slot] && planeOf(moments[slot]);
  const run = state.shown[slot];
  setTitle(id, lettered(run, [whenNow(), plane ? `loss at the centre ${told(plane.centre)}` : ""].filter(Boolean).join(" · ")));
  byId(`${id}-note`).textContent = plane ? `${plane.about} ${plane.notes[state.shared ? 0 : 1]}` : "";
  if (!plane) return say(id, missing(slot, "such plane"));
  const scale = scaleNow(plane);
  const cells = heatmap(plane.x, plane.y, plane.z, scale, { bar: colourBar(scale, plane.value) });
  const lines = state.contours && !quick && !scale.flat ? [contours(plane, cells[0].z, scale)] : [];
  const traces = [...cells, ...lines, ...plane.paths.flatMap(pathTraces), ...netTraces(plane.nets), ...centre(plane)];
  legend(id, planeLegend(plane, cells));
  return draw(id, traces, planeLayout(plane), `Plane of losses, ${kindNow().label}. ${plane.about}`);
}

/** Cells on a colour scale; a second layer colours those that are not finite or outside of the scale, which plotly leaves white. */
function heatmap(x, y, losses, scale, { bar = null, hover = CELL_HOVER } = {}) {
  const [low, high] = ends(scale);
  const z = losses.map((row) => Array.from(row, (loss) => lifted(loss, scale)));
  const marks = losses.map((row) => Array.from(row, (loss) => markOf(loss, scale)));
  const marked = marks.some((row) => row.some((mark) => mark !== null));
  const look = bar ? { colorbar: bar } : { showscale: false };
  const cells = { type: "heatmap", x, y, z, zmin: low, zmax: high, colorscale: VIRIDIS, ...look, customdata: losses, hovertemplate: hover };
  const layers = [{ ...cells, zsmooth: marked ? false : "fast" }];
  return marked ? [...layers, markLayer(x, y, marks)] : layers;
}

const CELL_HOVER = "α %{x:.3f}<br>β %{y:.3f}<br>loss %{customdata:.5g}<extra></extra>";
const [NOT_FINITE, BELOW, ABOVE] = [0, 1, 2];

function markOf(loss, scale) {
  if (!Number.isFinite(loss)) return NOT_FINITE;
  if (scale.log && loss <= 0) return BELOW;
  const margin = 1e-4 * (scale.log ? loss : scale.high - scale.low); // what the embedded numbers are worth
  return loss > scale.high + margin ? ABOVE : loss < scale.low - margin ? BELOW : null;
}

function markLayer(x, y, marks) {
  const colours = [VERMILION, UNDER, OVER].flatMap((ink, i) => [[i / 3, ink], [(i + 1) / 3, ink]]);
  return { type: "heatmap", x, y, z: marks, zmin: -0.5, zmax: 2.5, colorscale: colours, showscale: false, hoverinfo: "skip" };
}

function colourBar(scale, title) {
  const place = { thickness: 11, len: 1, xpad: 4, outlinewidth: 0, tickfont: { size: 10 } };
  return { ...place, title: { text: title, side: "right", font: { size: 11 } }, ...ticksOf(scale) };
}

function contours(plane, z, scale) {
  const [low, high] = ends(scale);
  const size = (high - low) / 10;
  const line = { color: "rgba(255,255,255,.6)", width: 0.8, smoothing: 0 };
  const levels = { coloring: "none", start: low + size, end: high - size / 2, size };
  return { type: "contour", x: plane.x, y: plane.y, z, autocontour: false, contours: levels, line, showscale: false, hoverinfo: "skip" };
}

const PATH_COLOURS = ["#ffffff", "#E69F00", "#56B4E9", "#CC79A7", "#0072B2"];
const pathColour = (number) => PATH_COLOURS[number % PATH_COLOURS.length];

/** A path with its points, on a dark rim so that it is seen on any colour; a ring at its start, a star at its end. */
function pathTraces(path, number) {
  const [x, y] = [0, 1].map((axis) => path.points.map((point) => point[axis]));
  const last = path.points.length - 1;
  const ink = pathColour(number);
  const symbol = path.points.map((_, i) => (i === last ? "star" : i === 0 ? "circle-open" : "circle"));
  const size = path.points.map((_, i) => (i === last ? 13 : i === 0 ? 11 : 5));
  const marker = { symbol, size, color: ink, line: { color: path.points.map((_, i) => (i === 0 && last ? ink : "#000")), width: path.points.map((_, i) => (i === 0 ? 2 : 0.8)) } };
  const rim = { type: "scatter", mode: "lines+markers", x, y, line: { color: "#000", width: 3.4 }, marker: { size: size.map((s) => s + 1), color: "#000", symbol, line: { width: path.points.map((_, i) => (i === 0 ? 3.5 : 0)), color: "#000" } }, hoverinfo: "skip" };
  return [rim, { type: "scatter", mode: "lines+markers", x, y, line: { color: ink, width: 1.8 }, marker, ...pathHover(path) }];
}

/** What is known of each point of a path: its clock, its own loss, its shadow's, its distance from the plane. */
function pathHover(path) {
  const names = [null, null, "at", "loss", "loss of its shadow", "off the plane by"];
  const known = names.map((name, i) => name && path.points.some((point) => point[i] !== null)).map((yes, i) => (yes ? i : 0)).filter(Boolean);
  const rows = known.map((i) => `${names[i]} %{customdata[${i}]:.4g}`);
  return { customdata: path.points, hovertemplate: `${rows.join("<br>")}<extra></extra>` };
}

function netTraces(nets) {
  if (!nets.length) return [];
  const marker = { size: 17, color: "#fff", line: { color: "#000", width: 1 } };
  const [x, y] = [0, 1].map((axis) => nets.map((net) => net[axis]));
  return [{ type: "scatter", mode: "markers+text", x, y, marker, text: nets.map((_, i) => String(i + 1)), textfont: { color: "#000", size: 11 }, hoverinfo: "skip" }];
}

function centre(plane) {
  const inside = [plane.x, plane.y].every((axis) => axis[0] <= 0 && axis[axis.length - 1] >= 0);
  const cross = (width, ink) => ({ type: "scatter", mode: "markers", x: [0], y: [0], marker: { symbol: "cross-thin", size: 13, line: { width, color: ink } }, hoverinfo: "skip" });
  return plane.centre === null && !inside ? [] : [cross(4.5, "#fff"), cross(1.8, "#000")];
}

function planeLegend(plane, cells) {
  const paths = plane.paths.map((path, number) => ({ name: path.name, colour: pathColour(number), mark: "path" }));
  const marks = cells.length > 1 ? new Set(cells[1].z.flat()) : new Set();
  const kinds = [["not finite", VERMILION], ["0, or below the colours", UNDER], ["above the colours", OVER]];
  const found = kinds.flatMap(([name, ink], mark) => (marks.has(mark) ? [{ name, colour: ink, mark: "cell" }] : []));
  return [...(paths.length > 1 ? paths : []), ...found];
}

function planeLayout(plane) {
  const [x, y] = plane.labels.map((lines) => lines.join("<br>"));
  const [width, height] = plane.units ?? [0, 0];
  const square = plane.units && Math.abs(width / height - 1) < 0.02 ? { scaleanchor: "x", scaleratio: 1 } : {};
  const edges = (places) => [places[0], places[places.length - 1]];
  return layout({
    x: { title: x, range: edges(plane.x), constrain: "domain" },
    y: { title: y, range: edges(plane.y), constrain: "domain", ...square },
    margin: { l: 44, r: 4, t: 8, b: 52 },
    uirevision: kindNow().kind,
  });
}

/** The plane's numbers as a file; the moment's own grid.npy has all their digits. */
function savePlaneCsv() {
  const plane = moments[0] && planeOf(moments[0]);
  if (!plane) return;
  const rows = plane.z.flatMap((row, j) => Array.from(row, (loss, i) => `${plane.x[i]},${plane.y[j]},${loss}`));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([["alpha,beta,loss", ...rows, ""].join("\n")], { type: "text/csv" }));
  link.download = "plane.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const savePlanePng = () => Plotly.downloadImage("plane0", { format: "png", scale: 2, filename: "plane" });
