// Flat pictures by keyboard: + and − to look closer or further, arrows to move, 0 for all of it again.

const STEP = 0.2;

function makeKeyed(place) {
  place.tabIndex = 0;
  place.setAttribute("aria-describedby", "keys");
  place.addEventListener("keydown", (event) => {
    const change = place.layout && !place.layout.scene && !event.ctrlKey && !event.metaKey && !event.altKey ? keyChange(place, event.key) : null;
    if (!change) return;
    event.preventDefault();
    Plotly.relayout(place, change);
  });
}

function keyChange(place, key) {
  if (key === "0") return place.whole ?? null;
  const ranges = { xaxis: place.layout.xaxis.range.slice(), yaxis: place.layout.yaxis.range.slice() };
  const moves = { ArrowLeft: ["xaxis", -STEP], ArrowRight: ["xaxis", STEP], ArrowDown: ["yaxis", -STEP], ArrowUp: ["yaxis", STEP] };
  const zoom = { "+": -STEP, "=": -STEP, "-": STEP, "−": STEP }[key];
  if (zoom === undefined && !(key in moves)) return null;
  place.whole ??= { "xaxis.range": ranges.xaxis, "yaxis.range": ranges.yaxis };
  const moved = ([low, high], by) => [low + by * (high - low), high + by * (high - low)];
  const zoomed = ([low, high]) => [low - zoom * (high - low) * 0.5, high + zoom * (high - low) * 0.5];
  if (zoom !== undefined) return { "xaxis.range": zoomed(ranges.xaxis), "yaxis.range": zoomed(ranges.yaxis) };
  const [axis, by] = moves[key];
  return { [`${axis}.range`]: moved(ranges[axis], by) };
}
