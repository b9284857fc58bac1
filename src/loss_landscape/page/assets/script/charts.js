// Quantities over the moments, each with the position's line; and matrices between nets.

const MANY = 120; // points from which a raw line is a solid block

function drawChart(chart) {
  const values = chart.series.flatMap((series) => [...series.values, ...series.lower, ...series.upper, ...series.members.flat()]);
  const scale = scaleOf(values, chart.log && values.every((value) => value === null || !(value <= 0)));
  const axis = heightsAxis(scale, "");
  const y = chart.unit === "%" ? { ...axis, ...(scale.log ? {} : { tickformat: ".3~p", exponentformat: undefined }) } : axis;
  const drawn = chart.series.map((series, number) => ({ series, ...seriesLook(chart, series, number) }));
  const named = drawn.length > 1 || runs.length > 1 ? drawn.map(({ series, ink, dash }) => ({ name: lettered(series.run, series.name), colour: ink, dash })) : [];
  legend(chart.id, [...named, ...(drawn.some(({ series }) => lostPlaces(series).length) ? [CROSS_KEY] : [])]);
  const traces = drawn.flatMap((each) => seriesTraces(each, scale, axis.range[0]));
  const x = { title: head.clock, nticks: 7, ...(head.positions.length < 6 ? { tickvals: head.positions } : {}) };
  const its = layout({ x, y, shapes: cursorShapes(), margin: { l: 46, r: 8, t: 6, b: 34 } });
  const done = draw(chart.id, traces, its, chartSaid(chart, drawn));
  const place = byId(chart.id);
  if (!place.listens) {
    place.listens = true;
    place.on("plotly_click", (event) => go(nearest(head.positions, event.points[0].x)));
  }
  return done;
}

/** One run alone: a colour for each series. Several: a colour for each run, a dash for each of its series. */
function seriesLook(chart, series, number) {
  if (runs.length === 1) return { ink: runColour(number), dash: DASHES[Math.floor(number / NUM_RUN_COLOURS) % DASHES.length] };
  const own = chart.series.filter((other) => other.run === series.run).indexOf(series);
  return { ink: runColour(series.run), dash: DASHES[own % DASHES.length] };
}

/** Where a series has its values: at its own places, else at the moments of its own run. */
function placesOf(series) {
  if (series.x.length) return series.x;
  return head.positions.filter((_, i) => momentOf(series.run, i) !== null).slice(0, series.values.length);
}

/** Where its values are not finite. */
function lostPlaces(series) {
  return placesOf(series).filter((_, i) => series.values[i] !== null && !Number.isFinite(series.values[i]));
}

function seriesTraces({ series, ink, dash }, scale, floor) {
  const x = placesOf(series);
  const heights = (values) => values.map((value) => lifted(value, scale));
  const many = series.values.length > MANY;
  const thin = series.members.map((member) => ({ type: "scatter", mode: "lines", x, y: heights(member), line: { color: ink, width: 0.8 }, opacity: 0.35, hoverinfo: "skip" }));
  const band = series.lower.length ? [bandTrace(x, heights(series.lower), heights(series.upper), ink)] : [];
  const median = many ? [{ type: "scatter", mode: "lines", x, y: smoothed(heights(series.values)), line: { color: ink, width: 2.5, dash }, hoverinfo: "skip" }] : [];
  const hovertemplate = "%{x}: %{customdata:.5g}<extra></extra>";
  const mode = series.values.length > 60 ? "lines" : "lines+markers";
  const line = { type: "scatter", mode, x, y: heights(series.values), customdata: series.values, line: { color: ink, width: many ? 1 : 2, dash: many ? "solid" : dash }, opacity: many ? 0.35 : 1, marker: { size: 6, color: ink }, hovertemplate };
  const lost = lostPlaces(series);
  return [...band, ...thin, line, ...median, ...(lost.length ? [notFinite(lost, floor)] : [])];
}

/** A band between bounds, in pieces where one of them is missing. */
function bandTrace(x, lower, upper, ink) {
  const [xs, ys] = [[], []];
  let piece = [];
  const close = () => {
    if (piece.length > 1) {
      const back = piece.slice().reverse();
      xs.push(...piece.map((i) => x[i]), ...back.map((i) => x[i]), null);
      ys.push(...piece.map((i) => upper[i]), ...back.map((i) => lower[i]), null);
    }
    piece = [];
  };
  x.forEach((_, i) => (lower[i] === null || upper[i] === null ? close() : piece.push(i)));
  close();
  return { type: "scatter", mode: "lines", x: xs, y: ys, fill: "toself", fillcolor: `${ink}38`, line: { width: 0 }, hoverinfo: "skip" };
}

function cursorShapes() {
  if (numPositions < 2) return [];
  const x = head.positions[state.position];
  return [{ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colour("ink"), width: 1.4, dash: "dot" } }];
}

function moveCursors() {
  for (const chart of head.charts) {
    const place = byId(chart.id);
    if (place.layout?.shapes?.length) Plotly.relayout(place, { shapes: cursorShapes() });
  }
}

/** A chart in words: where each series begins and ends. */
function chartSaid(chart, drawn) {
  const one = ({ series }) => {
    const known = series.values.filter((value) => value !== null);
    return known.length ? `${lettered(series.run, series.name)}: first ${told(known[0])}, last ${told(known[known.length - 1])}` : "";
  };
  return `${chart.title} by ${head.clock}. ${drawn.slice(0, 8).map(one).filter(Boolean).join("; ")}.`;
}

function drawMatrix(matrix) {
  const { z } = matrix;
  const places = matrix.labels.map((_, i) => i);
  const hover = `%{text}: %{customdata:.5g}<extra></extra>`;
  const cells = heatmap(places, places, z, matrix.scale, { bar: colourBar(matrix.scale, ""), hover });
  const named = matrix.labels.map((row) => matrix.labels.map((column) => `${row}, ${column}`));
  for (const layer of cells) Object.assign(layer, { zsmooth: false, text: named });
  legend(matrix.id, planeLegend({ paths: [] }, cells).map((entry) => (entry.name === "not finite" ? { ...entry, name: "not measured, or not finite" } : entry)));
  const tickvals = places.filter((place) => place % Math.ceil(places.length / 12) === 0);
  const numbered = { tickvals, ticktext: tickvals.map((place) => matrix.labels[place]), range: [-0.5, places.length - 0.5] };
  const its = layout({ x: { ...numbered, constrain: "domain" }, y: { ...numbered, range: numbered.range.slice().reverse(), scaleanchor: "x", constrain: "domain" } });
  const largest = scaleOf(z.flatMap((row) => Array.from(row)), false).high;
  return draw(matrix.id, cells, its, `${matrix.title}: ${places.length} by ${places.length}, the largest ${told(largest)}.`);
}
