// The kinds of pictures that the page draws; plotly's core has scatter.
"use strict";
const Plotly = require("plotly.js/lib/core");
Plotly.register([
  require("plotly.js/lib/heatmap"),
  require("plotly.js/lib/contour"),
  require("plotly.js/lib/surface"),
  require("plotly.js/lib/scatter3d"),
  require("plotly.js/lib/isosurface"),
]);
module.exports = Plotly;
