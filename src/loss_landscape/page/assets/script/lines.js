// Losses over one coordinate: a plane's lines through its centre, lines along single directions, ways between two nets.

/** Lines of {x, z, name, ink, dash, noise} on one pair of axes, with crosses where they are not finite. */
function drawLines(id, lines, { x, y = "loss", log, said, rings = [] }) {
  const scale = scaleOf([...lines.flatMap((line) => Array.from(line.z)), ...rings.map((ring) => ring.y)], log);
  const axis = heightsAxis(scale, y);
  const bands = lines.filter((line) => line.noise).map((line) => noiseBand(line, scale));
  const traces = lines.map((line) => lineTrace(line, scale));
  const crosses = lines.map((line) => notFinite(line.x.filter((_, i) => !Number.isFinite(line.z[i])), axis.range[0]));
  const named = lines.length > 1 ? lines.map((line) => ({ name: line.name, colour: line.ink, dash: line.dash })) : [];
  legend(id, [...named, ...(crosses.some((cross) => cross.x.length) ? [CROSS_KEY] : [])]);
  const marks = rings.map((ring) => ({ type: "scatter", mode: "markers", x: [ring.x], y: [lifted(ring.y, scale)], marker: { symbol: "circle-open", size: 11, line: { width: 2 }, color: ring.ink }, hoverinfo: "skip" }));
  return draw(id, [...bands, ...traces, ...marks, ...crosses.filter((cross) => cross.x.length)], layout({ x: { title: x }, y: axis }), said);
}

function lineTrace(line, scale) {
  const z = Array.from(line.z);
  const look = { color: line.ink, width: 2, dash: line.dash ?? "solid" };
  const hovertemplate = "%{x:.4g}<br>loss %{customdata:.5g}<extra></extra>";
  return { type: "scatter", mode: "lines", x: line.x, y: z.map((loss) => lifted(loss, scale)), customdata: z, line: look, hovertemplate, connectgaps: false };
}

/** What rounding can't resolve, around a line. */
function noiseBand(line, scale) {
  const [low] = ends(scale);
  const kept = line.x.map((x, i) => [x, line.z[i]]).filter(([, loss]) => Number.isFinite(loss));
  const edge = (sign) => kept.map(([, loss]) => lifted(loss + sign * line.noise, scale) ?? low);
  const x = [...kept.map(([place]) => place), ...kept.map(([place]) => place).reverse()];
  return { type: "scatter", mode: "lines", x, y: [...edge(1), ...edge(-1).reverse()], fill: "toself", fillcolor: "rgba(128,128,128,.35)", line: { width: 0 }, hoverinfo: "skip" };
}

function drawCuts() {
  const planes = each(planeOf);
  if (!planes.length) return say("cuts", "There is no such plane here.");
  const lines = planes.flatMap(({ run, found, ink }) => cutsOf(found, run, ink));
  if (!lines.length) return say("cuts", "The plane does not reach the net, so that there are no lines through it.");
  const rings = planes.flatMap(({ found, ink }) => (found.centre === null ? [] : [{ x: 0, y: found.centre, ink }]));
  const log = planes.some(({ found }) => scaleNow(found).log);
  return drawLines("cuts", lines, { x: "α or β", log, rings, said: "Losses along the two axes of the plane, through its centre." });
}

function cutsOf(plane, run, ink) {
  const reaches = (axis) => axis[0] <= 0 && axis[axis.length - 1] >= 0;
  const [i, j] = [nearest(plane.x, 0), nearest(plane.y, 0)];
  const along = { x: plane.x, z: plane.z[j], name: lettered(run, "α, β = 0"), ink, noise: plane.noise };
  const across = { x: plane.y, z: plane.z.map((row) => row[i]), name: lettered(run, "β, α = 0"), ink, dash: "dash", noise: plane.noise };
  return [...(reaches(plane.y) ? [along] : []), ...(reaches(plane.x) ? [across] : [])];
}

function drawSingleLines() {
  const found = each((moment) => (moment.lines.length ? moment.lines : null));
  if (!found.length) return say("lines-losses", "There are no lines here.");
  const lines = found.flatMap(({ run, found: own, ink }) => own.map((line, number) => ({ ...line, name: lettered(run, line.name), ink, dash: DASHES[number % DASHES.length] })));
  const rings = found.flatMap(({ found: own, ink }) => (own[0].centre === null ? [] : [{ x: 0, y: own[0].centre, ink }]));
  const log = found.some(({ found: own }) => own.some((line) => line.scale.log));
  const x = lines.length === 1 ? lines[0].label.join(" ") : "distance, in units of the direction";
  return drawLines("lines-losses", lines, { x, y: lines[0].value, log, rings, said: "Losses along single directions." });
}

function drawConnection() {
  const found = each((moment) => (moment.connection.length ? moment.connection : null));
  if (!found.length) return say("connection-losses", "No ways between nets were measured here.");
  const lines = found.flatMap(({ run, found: own, ink }) => own.map((curve, number) => ({ ...curve, x: Array.from(curve.x), name: lettered(run, curve.name), ink, dash: DASHES[number % DASHES.length] })));
  const all = scaleOf(lines.flatMap((line) => Array.from(line.z)), true);
  const log = all.log && all.high >= 100 * all.low;
  return drawLines("connection-losses", lines, { x: "t, from one net to the other", log, said: "Losses on the way from one net to the other." });
}
