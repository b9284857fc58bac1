// What the page holds: the head, read at once, and blocks of arrays, decoded when they are looked at (blocks.py writes both).

const byId = (id) => document.getElementById(id);

/** JSON in which NaN and the infinities are strings. */
function readJson(text) {
  const words = { NaN, Infinity, "-Infinity": -Infinity };
  return JSON.parse(text, (key, value) => (typeof value === "string" && value in words ? words[value] : value));
}

const head = readJson(byId("head").textContent);
const KEPT_BLOCKS = 16;
const decoded = new Map();

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The facts of a block, each array in them decoded; the last ones looked at are kept. */
async function block(name) {
  if (!decoded.has(name)) decoded.set(name, decodeBlock(name));
  const found = decoded.get(name);
  decoded.delete(name);
  decoded.set(name, found); // the newest is last
  if (decoded.size > KEPT_BLOCKS) decoded.delete(decoded.keys().next().value);
  return found;
}

async function decodeBlock(name) {
  const bytes = await unzipped(bytesOf(byId(name).textContent));
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const facts = readJson(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return withArrays(facts, bytes.subarray(4 + length));
}

function withArrays(value, bytes) {
  if (Array.isArray(value)) return value.map((entry) => withArrays(entry, bytes));
  if (value === null || typeof value !== "object") return value;
  if ("width" in value && "at" in value) return arrayOf(value, bytes);
  if ("from" in value && "count" in value) return evenly(value.from, value.to, value.count);
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, withArrays(entry, bytes)]));
}

/** An array: numbers for one axis, rows of numbers for two, layers of rows for three. */
function arrayOf({ at, shape, width, log, low, high }, bytes) {
  const count = shape.reduce((product, side) => product * side, 1);
  const side = shape[shape.length - 1];
  if (bytes.length < at + width * count) throw new Error("a block is cut off");
  const size = 256 ** width;
  const special = [NaN, Infinity, -Infinity, 0];
  const out = new Float64Array(count);
  let code = 0;
  for (let i = 0; i < count; i++) {
    if (i % side === 0) code = 0;
    let change = 0;
    for (let byte = width - 1; byte >= 0; byte--) change = change * 256 + bytes[at + byte * count + i];
    code = (code + change) % size;
    const share = code / (size - 16);
    const place = low * (1 - share) + high * share; // their difference may be too large for a number
    out[i] = code > size - 16 ? special[size - 1 - code] : log ? 10 ** place : place;
  }
  return shape.slice(1).reverse().reduce(inRows, out);
}

function inRows(values, side) {
  const rows = [];
  for (let i = 0; i < values.length; i += side) rows.push(values.slice(i, i + side));
  return rows;
}

function evenly(from, to, count) {
  return Array.from({ length: count }, (_, i) => (count > 1 ? from + ((to - from) * i) / (count - 1) : from));
}
