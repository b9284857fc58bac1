// A plane as a surface in three dimensions, where the browser has WebGL.

const hasWebgl = (() => {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext(); // browsers count open ones
  return Boolean(context);
})();

function camera() {
  const [around, up] = [state.turn, state.tilt].map((degrees) => (degrees * Math.PI) / 180);
  const distance = isNarrow() ? 2.1 : 1.85;
  const eye = { x: distance * Math.cos(up) * Math.cos(around), y: distance * Math.cos(up) * Math.sin(around), z: distance * Math.sin(up) };
  return { eye, center: { x: 0, y: 0, z: -0.13 } };
}

function drawSurfaces() {
  return Promise.all(state.shown.map((_, slot) => drawSurface(slot)));
}

async function drawSurface(slot) {
  const id = `surface${slot}`;
  const plane = moments[slot] && planeOf(moments[slot]);
  setTitle(id, lettered(state.shown[slot], "the plane as a surface"));
  if (!hasWebgl) return say(id, "This browser has no WebGL: the plane beside it holds the same numbers.");
  if (!plane) return say(id, missing(slot, "such plane"));
  const scale = scaleNow(plane);
  const [low, high] = ends(scale);
  const clipped = (loss) => { const height = lifted(loss, scale); return height === null ? null : Math.min(Math.max(height, low), high); };
  const z = plane.z.map((row) => Array.from(row, clipped));
  const still = { highlight: false };
  const light = { ambient: 0.72, diffuse: 0.55, specular: 0.05, roughness: 0.9 };
  const sheet = { type: "surface", x: plane.x, y: plane.y, z, cmin: low, cmax: high, colorscale: VIRIDIS, showscale: false, hoverinfo: "skip", lighting: light, contours: { x: still, y: still, z: still } };
  const traces = [sheet, ...plane.paths.flatMap((path, number) => surfacePath(path, number, clipped)), ...holes(plane, low)];
  return draw(id, traces, surfaceLayout(plane, scale), `The same plane as a surface. ${plane.about}`);
}

function surfacePath(path, number, clipped) {
  const points = path.points.filter((point) => point[4] !== null);
  const heights = points.map((point) => clipped(point[4]));
  const [x, y] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const line = (width, ink) => ({ type: "scatter3d", mode: "lines", x, y, z: heights, line: { color: ink, width }, hoverinfo: "skip" });
  return points.length ? [line(9, "#000"), line(5, pathColour(number))] : [];
}

/** Crosses on the floor below cells that are not finite. */
function holes(plane, low) {
  const places = plane.z.flatMap((row, j) => Array.from(row, (loss, i) => (Number.isFinite(loss) ? null : [plane.x[i], plane.y[j]])).filter(Boolean));
  const [x, y] = [0, 1].map((axis) => places.map((place) => place[axis]));
  const marker = { symbol: "x", size: 2, color: VERMILION };
  return places.length ? [{ type: "scatter3d", mode: "markers", x, y, z: x.map(() => low), marker, hoverinfo: "skip" }] : [];
}

function surfaceLayout(plane, scale) {
  const [low, high] = ends(scale);
  const across = { nticks: 5 };
  return {
    ...layout({ margin: { l: 0, r: 0, t: 0, b: 0 } }),
    uirevision: "kept",
    scene: {
      dragmode: coarsePointer ? false : "turntable",
      camera: camera(),
      uirevision: `${state.turn} ${state.tilt}`,
      aspectmode: "manual",
      aspectratio: { x: 1, y: 1, z: 0.75 },
      xaxis: sceneAxis("α", across),
      yaxis: sceneAxis("β", across),
      zaxis: sceneAxis("loss", { range: [low, high], ...ticksOf(scale) }),
    },
  };
}

function turnSurfaces() {
  for (const slot of state.shown.keys()) {
    if (byId(`surface${slot}`).layout) Plotly.relayout(`surface${slot}`, { "scene.camera": camera() });
  }
}
