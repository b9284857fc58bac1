// A volume: a slice that a slider moves, or surfaces of equal loss.

const volumeSlot = () => +(byId("volume-run")?.value ?? 0);

function drawVolume() {
  const volume = moments[volumeSlot()]?.volume;
  setTitle("volume-slice", "");
  if (!volume) return say("volume-slice", missing(volumeSlot(), "volume"));
  const [x, y, heights] = volume.axes;
  const slider = byId("slice");
  if (+slider.max !== heights.length - 1) {
    slider.max = heights.length - 1;
    slider.value = nearest(heights, 0);
  }
  byId("slice-said").textContent = `γ = ${told(heights[+slider.value], 3)}`;
  slider.setAttribute("aria-valuetext", byId("slice-said").textContent);
  byId("volume-note").textContent = `Loss at the centre ${told(volume.centre)}. ${volume.notes}`;
  return byId("equal").checked ? drawEqualLosses(volume) : drawSlice(volume, x, y, +slider.value);
}

function drawSlice(volume, x, y, number) {
  leaveScene(false);
  const said = `Slice at γ = ${told(volume.axes[2][number], 3)}`;
  setTitle("volume-slice", said);
  const cells = heatmap(x, y, volume.z[number], volume.scale, { bar: colourBar(volume.scale, volume.value) });
  const [across, up] = volume.labels.map((lines) => lines.join("<br>"));
  const its = layout({ x: { title: across, constrain: "domain" }, y: { title: up, constrain: "domain" }, margin: { l: 44, r: 4, t: 8, b: 52 } });
  legend("volume-slice", cells.length > 1 ? planeLegend({ paths: [] }, cells) : []);
  return draw("volume-slice", cells, its, `${said} of the volume.`);
}

async function drawEqualLosses(volume) {
  if (!hasWebgl) return say("volume-slice", "This browser has no WebGL: the slices hold the same numbers.");
  leaveScene(true);
  setTitle("volume-slice", "Surfaces of equal loss");
  legend("volume-slice", []);
  const [low, high] = ends(volume.scale);
  const cells = volume.z.flatMap((layer, k) => layer.flatMap((row, j) => Array.from(row, (loss, i) => [i, j, k, lifted(loss, volume.scale) ?? high])));
  const column = (axis) => cells.map((cell) => volume.axes[axis][cell[axis]]);
  const hidden = { show: false };
  const [x, y, z] = [0, 1, 2].map(column);
  const trace = {
    type: "isosurface", x, y, z, value: cells.map((cell) => cell[3]), isomin: low + 0.3 * (high - low), isomax: low + 0.8 * (high - low),
    cmin: low, cmax: high, surface: { count: 3 }, opacity: 0.4, colorscale: VIRIDIS, caps: { x: hidden, y: hidden, z: hidden },
    colorbar: colourBar(volume.scale, volume.value), hoverinfo: "skip",
  };
  const scene = { dragmode: coarsePointer ? false : "turntable", camera: camera(), xaxis: sceneAxis("α"), yaxis: sceneAxis("β"), zaxis: sceneAxis("γ") };
  return draw("volume-slice", [trace], { ...layout({ margin: { l: 0, r: 0, t: 0, b: 0 } }), scene }, "Three surfaces of equal loss in the volume.");
}

/** A place that changes between a flat picture and a scene begins anew. */
function leaveScene(toScene) {
  const place = byId("volume-slice");
  if (place.layout && Boolean(place.layout.scene) !== toScene) Plotly.purge(place);
}
