// Builds the one foreign file of the package: node build.mjs (README.md beside this file says when).
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import esbuild from "esbuild";
import { environmentPlugin } from "esbuild-plugin-environment";
import { glsl } from "esbuild-plugin-glsl";
import inlineCss from "esbuild-plugin-inline-css";

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(process.argv[2] ?? path.join(here, "../../src/loss_landscape/page/assets"));
const version = JSON.parse(readFileSync(path.join(here, "node_modules/plotly.js/package.json"))).version;

const built = await esbuild.build({
  absWorkingDir: here,
  entryPoints: ["traces.js"],
  format: "iife",
  globalName: "Plotly",
  bundle: true,
  minify: true,
  legalComments: "none", // they are in the licence file, whole
  write: false,
  metafile: true,
  plugins: [inlineCss(), glsl({ minify: true }), environmentPlugin({ NODE_DEBUG: false })],
  alias: { stream: "stream-browserify" },
  define: { global: "window", "define.amd": "false" },
  target: "es2016",
});

/** The folders of the packages whose code is in the bundle. */
function packagesOf(metafile) {
  const inputs = Object.values(metafile.outputs)[0].inputs;
  const used = Object.keys(inputs).filter((input) => inputs[input].bytesInOutput > 0);
  const folders = used.map((input) => /.*node_modules\/(@[^/]+\/)?[^/]+/.exec(input)?.[0]).filter(Boolean);
  return [...new Set(folders)].sort();
}

/** What a package says of its licence, its own file where it has one. */
function licenceOf(folder) {
  const described = JSON.parse(readFileSync(path.join(here, folder, "package.json")));
  const file = readdirSync(path.join(here, folder)).find((name) => /^(licen[cs]e|copying)/i.test(name));
  const text = file ? readFileSync(path.join(here, folder, file), "utf8").trim() : `Licence: ${described.license}`;
  return `${described.name} ${described.version}\n\n${text.replace(/\r\n?/g, "\n")}\n`;
}

const code = `${built.outputFiles[0].text.trim()}\n`;
if (code.includes("\r") || /<\/script|<!--/i.test(code)) throw new Error("the bundle cannot stand inside a script element");
const name = `plotly-landscape-${version}.min.js`;
writeFileSync(path.join(target, name), code);
const rule = `\n${"-".repeat(80)}\n\n`;
const head = `${name} is plotly.js with the packages below, minified by esbuild.\n`;
writeFileSync(path.join(target, `plotly-landscape-${version}.LICENSE.txt`), [head, ...packagesOf(built.metafile).map(licenceOf)].join(rule));
console.log(`${name}: ${Buffer.byteLength(code)} bytes, sha256 ${createHash("sha256").update(code).digest("hex")}`);
