// The way of training: the loss of each net of a path beside that of its shadow on the plane, and how far off the plane it is.

const pathsOf = (moment) => {
  const planes = [planeOf(moment), ...Object.values(moment.planes)];
  return planes.find((plane) => plane && plane.paths.some(hasLosses))?.paths.filter(hasLosses) ?? null;
};
const hasLosses = (path) => path.points.some((point) => point[3] !== null);

function drawPaths() {
  const found = each(pathsOf);
  byId("paths-note").textContent = found.flatMap(({ run, found: paths }) => paths.map((path) => lettered(run, path.about))).join(" ");
  if (!found.length) {
    say("path-losses", "No path with losses of its own was recorded here.");
    return say("path-residuals", "No path was recorded here.");
  }
  const several = found.some(({ found: own }) => own.length > 1); // then a colour for each path, else for each run
  const all = found.flatMap(({ run, found: own, ink }) => own.map((path) => ({ path, ink, name: lettered(run, several ? path.name : "") })));
  const paths = several ? all.map((each, number) => ({ ...each, ink: runColour(number) })) : all;
  const clock = paths[0].path.clock === "epoch" ? "epoch" : "step";
  drawPathLosses(paths, clock);
  return drawResiduals(paths, clock);
}

const said = (name, what) => [name.replace(/ · $/, ""), what].filter(Boolean).join(": ");

function drawPathLosses(paths, clock) {
  const column = (path, i) => path.points.map((point) => point[i]);
  const values = paths.flatMap(({ path }) => [...column(path, 3), ...column(path, 4)]);
  const wide = scaleOf(values, true);
  const scale = scaleOf(values, wide.log && wide.high >= 10 * wide.low);
  const one = ({ path, ink }, i, dash, symbol) => ({ type: "scatter", mode: "lines+markers", x: column(path, 2), y: column(path, i).map((loss) => lifted(loss, scale)), customdata: column(path, i), line: { color: ink, width: 2, dash }, marker: { size: 6, symbol, color: ink }, hovertemplate: "at %{x:.6g}<br>loss %{customdata:.5g}<extra></extra>" });
  const axis = heightsAxis(scale, "loss");
  const crosses = paths.map(({ path }) => notFinite(column(path, 2).filter((_, i) => path.points[i][3] !== null && !Number.isFinite(path.points[i][3])), axis.range[0]));
  const traces = [...paths.flatMap((each) => [one(each, 3, "solid", "circle"), one(each, 4, "dash", "square-open")]), ...crosses.filter((cross) => cross.x.length)];
  const lost = crosses.some((cross) => cross.x.length) ? [CROSS_KEY] : [];
  legend("path-losses", [...paths.flatMap(({ name, ink }) => [
    { name: said(name, "its own loss"), colour: ink },
    { name: said(name, "that of its shadow on the plane"), colour: ink, dash: "dash" },
  ]), ...lost]);
  draw("path-losses", traces, layout({ x: { title: clock }, y: axis }), `The loss of each net of the path, and of its shadow. ${paths.map(({ path }) => path.about).join(" ")}`);
}

function drawResiduals(paths, clock) {
  const relative = paths.every(({ path }) => path.norm);
  const traces = paths.map(({ path, ink }) => ({ type: "scatter", mode: "lines+markers", x: path.points.map((point) => point[2]), y: path.points.map((point) => (point[5] === null ? null : point[5] / (relative ? path.norm : 1))), line: { color: ink, width: 2 }, marker: { size: 6 }, hovertemplate: "at %{x:.6g}<br>%{y:.4g}<extra></extra>" }));
  legend("path-residuals", paths.length > 1 ? paths.map(({ name, ink }) => ({ name: name.replace(/ · $/, ""), colour: ink })) : []);
  return draw("path-residuals", traces, layout({ x: { title: clock }, y: { title: relative ? "distance / ‖θ‖" : "distance", rangemode: "tozero" } }), "How far off the plane each net of the path is.");
}
