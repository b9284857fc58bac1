// What is looked at: a position of the slider, the runs, the kind of plane; and the moments that belong to it.

const runs = head.runs;
const numPositions = head.positions.length;
const state = {
  position: head.begin,
  shown: head.shown,
  kind: 0,
  shared: true,
  contours: true,
  turn: -50,
  tilt: 35,
  dragging: false,
};
let moments = []; // of the runs shown, decoded; null where a run has none

const momentOf = (run, position = state.position) => runs[run].moments[position] ?? null;
const lettered = (run, text) => (runs[run].letter ? `${runs[run].letter} · ${text}` : text);
const where = () => (numPositions > 1 ? `${head.clock} ${told(head.positions[state.position])}` : "");

/** Decode what the position needs, and the matrices; drawing then waits for nothing, so that printing can draw at once. */
async function loadMoments() {
  const found = state.shown.map((run) => momentOf(run));
  moments = await Promise.all(found.map((moment) => (moment ? block(moment.block) : null)));
  for (const matrix of head.matrices) matrix.z ??= (await block(matrix.block)).z;
}

/** The sentence for a run that lacks what its neighbour has. */
function missing(slot, what) {
  const run = state.shown[slot];
  const name = runs[run].letter ? `Run ${runs[run].letter}` : "This run";
  return `${name} has no ${what}${where() ? ` at ${where()}` : ""}.`;
}

/** What the runs shown have of something, each with its run and its colour. */
function each(pick) {
  return state.shown.flatMap((run, slot) => {
    const found = moments[slot] ? pick(moments[slot]) : null;
    return found ? [{ run, found, ink: runColour(run) }] : [];
  });
}
