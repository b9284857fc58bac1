// What is in sight is drawn, the rest when it comes into sight; the slider is linked to everything.

const panels = new Map(); // element → what draws it
const stale = new Set(); // panels whose picture is of another moment
const inSight = new Set();
let work = Promise.resolve();
let waiting = 0;

function register(id, drawing) {
  const element = typeof id === "string" ? byId(id) : id;
  if (element) panels.set(element, drawing);
}

register("planes", async () => {
  drawPlanes(state.dragging);
  if (state.dragging) return;
  drawCuts();
  await drawSurfaces(); // the dearest last
});
register("paths", drawPaths);
register("lines", drawSingleLines);
register("spectrum", drawSpectrum);
register("volume", drawVolume);
register("connection", drawConnection);
for (const chart of head.charts) register(byId(chart.id), () => drawChart(chart));
for (const matrix of head.matrices) register(byId(matrix.id), () => drawMatrix(matrix));

const followsSlider = ["planes", "paths", "lines", "spectrum", "volume", "connection"].map(byId).filter(Boolean);

/** Draw what is stale and in sight, one change after the other; changes that come meanwhile are drawn together. */
function refresh() {
  waiting += 1;
  work = work.then(async () => {
    waiting -= 1;
    if (waiting) return;
    await loadMoments();
    for (const [element, drawing] of panels) {
      if (!stale.has(element) || !inSight.has(element)) continue;
      if (!(state.dragging && element.id === "planes")) stale.delete(element);
      await drawing();
    }
  }).catch((error) => { console.error(error); });
  return work;
}

function renew(elements) {
  for (const element of elements) stale.add(element);
  return refresh();
}

/** Look at another position. */
function go(position, dragging = false) {
  state.position = Math.min(Math.max(position, 0), numPositions - 1);
  state.dragging = dragging;
  sayPosition();
  moveCursors();
  for (const element of followsSlider) stale.add(element);
  return refresh();
}

function sayPosition() {
  const slider = byId("position");
  if (!slider) return;
  const captions = state.shown.map((run) => [run, momentOf(run)?.caption]).filter(([, caption]) => caption);
  const text = [`${state.position + 1} of ${numPositions}`, ...captions.map(([run, caption]) => lettered(run, caption))].join(" · ");
  slider.value = state.position;
  slider.setAttribute("aria-valuetext", `${where()}, ${text}`);
  byId("said").textContent = text;
  byId("previous").disabled = state.position === 0;
  byId("next").disabled = state.position === numPositions - 1;
}

const listen = (id, event, action) => byId(id)?.addEventListener(event, action);

function listenToAll() {
  listen("position", "input", (event) => go(+event.target.value, true));
  listen("position", "change", (event) => go(+event.target.value));
  listen("previous", "click", () => go(state.position - 1));
  listen("next", "click", () => go(state.position + 1));
  for (const slot of [0, 1]) listen(`slot${slot}`, "change", (event) => { state.shown[slot] = +event.target.value; go(state.position); });
  listen("kind", "change", (event) => { state.kind = +event.target.value; renew(["planes", "paths"].map(byId).filter(Boolean)); });
  listen("shared", "change", (event) => { state.shared = event.target.checked; renew([byId("planes")]); });
  listen("contours", "change", (event) => { state.contours = event.target.checked; renew([byId("planes")]); });
  listen("csv", "click", savePlaneCsv);
  listen("png", "click", savePlanePng);
  for (const name of ["turn", "tilt"]) listen(name, "input", (event) => { state[name] = +event.target.value; turnSurfaces(); });
  for (const name of ["slice", "equal", "volume-run"]) listen(name, name === "slice" ? "input" : "change", () => renew([byId("volume")]));
  listen("theme", "click", () => { chosenTheme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; retheme(); });
  darkSystem.addEventListener("change", retheme);
}

function retheme() {
  applyTheme();
  return renew(panels.keys());
}

/** On paper: light, narrow, the cards unfolded, all that was not in sight drawn before. Tables stay as they are. */
function beforePrint() {
  document.documentElement.dataset.theme = "light";
  document.documentElement.classList.add("printing");
  for (const fold of document.querySelectorAll(".card details")) fold.open = true;
  for (const [element, drawing] of panels) {
    inSight.add(element);
    stale.delete(element);
    drawing(); // what is decoded is drawn at once
  }
  refit();
}

/** Fit all pictures into their places at once: plotly's own resize waits, and paper does not. */
function refit() {
  for (const plot of document.querySelectorAll(".plot")) {
    if (plot.layout) Plotly.relayout(plot, { autosize: true, width: null, height: null });
  }
}

function afterPrint() {
  document.documentElement.classList.remove("printing");
  refit();
  retheme();
}

function begin() {
  document.documentElement.classList.add("scripts");
  listenToAll();
  applyTheme();
  if (typeof Plotly === "undefined") {
    document.documentElement.classList.add("no-library");
    const warning = byId("without-library");
    warning.hidden = false;
    return;
  }
  sayPosition();
  for (const place of document.querySelectorAll(".plot")) makeKeyed(place);
  for (const element of panels.keys()) stale.add(element);
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? inSight.add(entry.target) : inSight.delete(entry.target);
    refresh();
  }, { rootMargin: "200px" });
  for (const element of panels.keys()) watcher.observe(element);
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);
}

// for tests and benchmarks
window.lossPage = {
  go,
  settled: async () => { let seen; do { seen = work; await seen; } while (seen !== work); },
  block,
  decodeAfresh: (name) => { decoded.delete(name); return block(name); },
  names: () => runs.map((run) => run.moments.map((moment) => moment?.block ?? null)),
};
begin();
