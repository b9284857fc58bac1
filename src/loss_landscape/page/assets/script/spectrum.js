// Eigenvalues of the Hessian: their density, those found one by one, and the curvature at which steps overshoot.

const DECADES = 8; // of density, below the highest

function drawSpectrum() {
  const found = each((moment) => moment.spectrum);
  byId("spectrum-note").textContent = found.map(({ run, found: own }) => spectrumNote(own, run)).filter(Boolean).join(" ");
  setTitle("spectrum-density", where());
  if (!found.length) return say("spectrum-density", "No spectrum was measured here.");
  const withDensity = found.some(({ found: own }) => own.density);
  const top = Math.max(...found.map(({ found: own }) => (own.density ? own.density.y.reduce((a, b) => (b > a ? b : a), 0) : 1)));
  const floor = withDensity ? top * 10 ** -DECADES : 1;
  const scale = { log: withDensity, low: floor, high: top };
  const traces = found.flatMap(({ found: own, ink }, number) => [...densityTrace(own, ink, scale), ...markTraces(own, ink, scale, number)]);
  const shapes = found.flatMap(({ found: own, ink }) => thresholdShape(own, ink, reachOf(found)));
  legend("spectrum-density", spectrumLegend(found));
  byId("spectrum-density").classList.toggle("low", !withDensity);
  const y = withDensity ? heightsAxis(scale, "density") : { visible: false, range: [0.4, 1.6] };
  return draw("spectrum-density", traces, layout({ x: { title: "eigenvalue λ" }, y, shapes }), `Spectrum of the Hessian. ${byId("spectrum-note").textContent}`);
}

function spectrumNote(own, run) {
  const { value, name } = own.threshold;
  const [most, error] = own.found[0] ?? [];
  const reached = Number.isFinite(most) ? `, ${(most / value).toPrecision(2)} of it is reached` : "";
  const edge = value === null ? "" : `${name} = ${told(value)}${reached}.`;
  const largest = Number.isFinite(most) ? `Largest λ ${told(most)} ± ${told(error, 2)}.` : own.found.length ? "The largest λ is not finite." : "";
  const text = [largest, edge, own.note].filter(Boolean).join(" ");
  return text ? lettered(run, text) : "";
}

function densityTrace(own, ink, scale) {
  if (!own.density) return [];
  const y = Array.from(own.density.y, (value) => (value > scale.low ? Math.log10(value) : null));
  const hovertemplate = "λ %{x:.4g}<br>density 10^%{y:.2f}<extra></extra>";
  return [{ type: "scatter", mode: "lines", x: Array.from(own.density.x), y, line: { color: ink, width: 2 }, connectgaps: false, hovertemplate }];
}

/** Marks for the eigenvalues that were found one by one, with bars as long as their errors. */
function markTraces(own, ink, scale, number) {
  const finite = own.found.filter(([value]) => Number.isFinite(value));
  if (!finite.length) return [];
  const height = scale.log ? ends(scale)[0] + 0.25 + 0.35 * number : 1 + 0.15 * number;
  const marker = { size: 10, color: ink, symbol: finite.map(([, , converged]) => (converged ? "triangle-up" : "triangle-up-open")), line: { width: 1.5 } };
  const bars = { type: "data", array: finite.map(([, error]) => (Number.isFinite(error) ? error : 0)), thickness: 1, width: 3 };
  return [{ type: "scatter", mode: "markers", x: finite.map(([value]) => value), y: finite.map(() => height), marker, error_x: bars, hovertemplate: "λ = %{x:.6g}<extra></extra>" }];
}

/** The largest λ that the picture shows. */
function reachOf(found) {
  return Math.max(...found.flatMap(({ found: own }) => [...own.found.map(([value]) => value).filter(Number.isFinite), ...(own.density ? [own.density.x[own.density.x.length - 1]] : [])]));
}

function thresholdShape(own, ink, reach) {
  const { value } = own.threshold;
  if (value === null || value > 2 * reach) return [];
  return [{ type: "line", x0: value, x1: value, yref: "paper", y0: 0, y1: 1, line: { color: ink, dash: "dash", width: 2 } }];
}

function spectrumLegend(found) {
  const reach = reachOf(found);
  return found.flatMap(({ run, found: own, ink }) => {
    const { value, name } = own.threshold;
    const line = value === null ? [] : [{ name: lettered(run, value > 2 * reach ? `${name} = ${told(value)} is off the scale` : `${name} = ${told(value)}`), colour: ink, dash: "dash" }];
    const density = own.density ? [{ name: lettered(run, "density"), colour: ink }] : [];
    const marks = own.found.length ? [{ name: lettered(run, "found one by one"), colour: ink, mark: "triangle" }] : [];
    return [...density, ...marks, ...line];
  });
}
