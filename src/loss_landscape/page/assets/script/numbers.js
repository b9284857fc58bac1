// Numbers as text, and scales: plotly has no logarithmic colours, so that the page takes logarithms and writes the ticks itself.

/** A number in a few digits, with a true minus. */
function told(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size >= 1e5 || (size > 0 && size < 1e-3) ? value.toExponential(Math.max(digits - 2, 0)) : String(+value.toPrecision(digits));
  return text.replace("e+", "e").replace(/-/g, "−");
}

/** A value's height on a scale; null, which plotly leaves out, where it has none. */
function lifted(value, scale) {
  if (value === null) return null;
  const height = scale.log ? (value > 0 ? Math.log10(value) : NaN) : value;
  return Number.isFinite(height) ? height : null;
}

const ends = (scale) => [scale.low, scale.high].map((end) => (scale.log ? Math.log10(end) : end));

/** A scale for these values: what is finite, and above 0 where it is logarithmic. */
function scaleOf(values, log) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || !Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? { log, low, high } : { log: false, low: 0, high: 1 };
}

/** Ticks for an axis of logarithms: decades, with 2 and 5 between few of them, or even steps within one. */
function logTicks(scale) {
  const [low, high] = ends(scale);
  const within = (values) => values.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
  const decades = evenly(Math.floor(low), Math.ceil(high), Math.ceil(high) - Math.floor(low) + 1);
  const every = Math.max(1, Math.ceil(decades.length / 7));
  const coarse = within(decades.filter((decade) => decade % every === 0).map((decade) => 10 ** decade));
  const fine = within(decades.flatMap((decade) => [1, 2, 5].map((digit) => digit * 10 ** decade)));
  const values = coarse.length >= 3 ? coarse : fine.length >= 3 ? fine : within(roundSteps(10 ** low, 10 ** high));
  return values.map((value) => ({ place: Math.log10(value), text: tickText(value) }));
}

/** Some round numbers between two, evenly apart. */
function roundSteps(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= rough) * power;
  return Array.from({ length: 8 }, (_, i) => (Math.ceil(low / step) + i) * step);
}

/** A tick's number; far from 1 a power of ten as such. */
function tickText(value) {
  const power = Math.round(Math.log10(value));
  if (Math.abs(power) < 4 || Math.abs(value / 10 ** power - 1) > 1e-9) return told(value, 3);
  return `10${String(power).replace(/./g, (sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻")}`;
}

/** What plotly needs for the ticks of an axis or a colour bar whose places are heights on `scale`. */
function ticksOf(scale) {
  if (!scale.log) return { tickmode: "auto", nticks: 6, exponentformat: "power" };
  const ticks = logTicks(scale);
  return { tickmode: "array", tickvals: ticks.map((tick) => tick.place), ticktext: ticks.map((tick) => tick.text) };
}

/** The running median of a long series: its raw line alone would be a solid block. */
function smoothed(values) {
  const half = Math.max(1, Math.round(values.length / 50));
  return values.map((_, i) => {
    const near = values.slice(Math.max(0, i - half), i + half + 1).filter((value) => value !== null && Number.isFinite(value));
    return near.length ? near.sort((a, b) => a - b)[near.length >> 1] : null;
  });
}

/** The place in an ascending list that is nearest to a value. */
function nearest(places, value) {
  return places.reduce((best, place, i) => (Math.abs(place - value) < Math.abs(places[best] - value) ? i : best), 0);
}
