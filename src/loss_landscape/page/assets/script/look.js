// How every picture looks, and how it is put into its place.

const VERMILION = "#D55E00"; // what is not finite, as in the PNGs
const [UNDER, OVER] = ["#160020", "#FFFFC8"]; // what lies outside the colour scale
const VIRIDIS = [
  "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c",
  "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
].map((colour, i, all) => [i / (all.length - 1), colour]);
const DASHES = ["solid", "dash", "dot", "dashdot"];

const coarsePointer = matchMedia("(pointer: coarse)").matches;
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const isNarrow = () => innerWidth < 640;
let chosenTheme = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const NUM_RUN_COLOURS = 6;
const runColour = (run) => colour(`run${run % NUM_RUN_COLOURS}`);

function applyTheme() {
  const theme = chosenTheme ?? (darkSystem.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Show the page in ${theme === "dark" ? "light" : "dark"} colours`);
  for (const swatch of document.querySelectorAll(".swatch")) swatch.style.background = runColour(+swatch.dataset.run);
}

function axisLook() {
  const grid = colour("grid");
  return { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true, tickfont: { size: 11 } };
}

/** A layout with the page's colours; titles of axes are the page's own words, never a user's: plotly reads tags in them. */
function layout({ x = {}, y = {}, ...more } = {}) {
  const font = { color: colour("ink"), size: 12, family: "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif" };
  const clear = "rgba(0,0,0,0)";
  return {
    paper_bgcolor: clear,
    plot_bgcolor: clear,
    font,
    margin: { l: 48, r: 10, t: 8, b: 40 },
    hoverlabel: { font: { size: 12 } },
    dragmode: coarsePointer ? false : "zoom",
    showlegend: false,
    xaxis: { ...axisLook(), ...titled(x) },
    yaxis: { ...axisLook(), ...titled(y) },
    ...more,
  };
}

function titled({ title, ...rest }) {
  return title ? { ...rest, title: { text: title, standoff: 4, font: { size: 12 } } } : rest;
}

function sceneAxis(title, more = {}) {
  const look = { gridcolor: colour("grid"), color: colour("ink"), showspikes: false, backgroundcolor: "rgba(0,0,0,0)" };
  return { ...look, tickfont: { size: 10 }, title: { text: title, font: { size: 12 } }, ...more };
}

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset", plotlyServerURL: "" };

/** Put a picture into its place; `said` tells in words what it shows. */
function draw(id, traces, itsLayout, said) {
  const place = byId(id);
  if (place.dataset.sentence) empty(place);
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", said);
  return Plotly.react(place, traces, itsLayout, CONFIG);
}

/** Put a sentence where there is no picture. */
function say(id, sentence) {
  const place = byId(id);
  if (place.layout) Plotly.purge(place);
  place.textContent = sentence;
  place.dataset.sentence = "yes";
  place.removeAttribute("role");
  place.removeAttribute("aria-label");
  legend(id, []);
}

function empty(place) {
  place.replaceChildren();
  delete place.dataset.sentence;
}

const setTitle = (id, text) => { byId(`${id}-title`).textContent = text; };

/** A legend of {name, colour, dash, mark} above a picture, as text: plotly's own would read tags in a user's names. */
function legend(id, entries) {
  const list = byId(`${id}-legend`);
  list.hidden = entries.length === 0;
  list.replaceChildren(...entries.map(legendEntry));
}

function legendEntry({ name, colour: ink, dash = "solid", mark = "line" }) {
  const item = document.createElement("li");
  const key = document.createElement("span");
  key.className = `key ${mark} ${dash}`;
  key.style.color = ink;
  item.append(key, name);
  return item;
}

const CROSS_KEY = { name: "not finite", colour: VERMILION, mark: "cross" };

/** Crosses on the lower edge at places whose value is not finite. */
function notFinite(places, low) {
  const marker = { symbol: "x-thin", size: 8, line: { width: 2, color: VERMILION } };
  return { type: "scatter", mode: "markers", x: places, y: places.map(() => low), marker, hoverinfo: "skip", cliponaxis: false };
}

/** The axis of a line's picture: its range, with ticks of our own where it is logarithmic. */
function heightsAxis(scale, title) {
  const [low, high] = ends(scale);
  const margin = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  return { title, range: [low - margin, high + margin], ...ticksOf(scale) };
}
