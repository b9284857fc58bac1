// Loads pages in a headless Chromium and tells what happened: a JSON job on standard input, findings on standard output.
//
// job: { webgl: bool, loads: [{ file, width, height, scheme, scripts: bool, steps: [[verb, argument], …] }] }
// finding: { errors, requests, results: what each step gave }
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import puppeteer from "puppeteer-core";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WITH_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
const LOCAL = /^(file|data|blob):/;

/** All drawing that has been asked for is done. */
const settle = (page) => page.evaluate(async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  for (let i = 0; i < 3; i++) {
    await frame();
    await frame();
    await window.lossPage.settled();
  }
});

async function scrollThrough(page) {
  const height = await page.evaluate(() => document.body.scrollHeight);
  for (let y = 0; y < height; y += 350) {
    await page.evaluate((to) => scrollTo(0, to), y);
    await settle(page);
  }
  await page.evaluate(() => scrollTo(0, 0));
  await settle(page);
}

async function axe(page) {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const { violations } = await window.axe.run();
    return violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes[0].target.join(" "), what: nodes[0].failureSummary }));
  });
}

const VERBS = {
  settle,
  scroll: scrollThrough,
  axe,
  evaluate: (page, code) => page.evaluate(code),
  focus: (page, selector) => page.focus(selector),
  press: async (page, key) => { await page.keyboard.press(key); },
  picture: async (page, path) => { await page.screenshot({ path, fullPage: true }); },
  pdf: async (page, path) => { await page.pdf({ path, format: "A4", printBackground: true }); },
};

async function load(browser, { file, width, height, scheme, scripts = true, steps }) {
  const page = await browser.newPage();
  const [errors, requests, results] = [[], [], []];
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(error.stack ?? error.message));
  page.on("request", (request) => { if (!LOCAL.test(request.url())) requests.push(request.url()); });
  await page.setJavaScriptEnabled(scripts);
  await page.setViewport({ width, height, isMobile: width < 600, hasTouch: width < 600 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(`file://${file}`, { waitUntil: "load" });
  for (const [verb, argument] of steps) results.push((await VERBS[verb](page, argument)) ?? null);
  await page.close();
  return { errors, requests, results };
}

const job = JSON.parse(readFileSync(0, "utf8"));
const options = job.webgl ? WITH_WEBGL : ["--disable-3d-apis"];
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  protocolTimeout: 300_000,
  args: ["--no-sandbox", "--hide-scrollbars", ...options],
});
const findings = [];
for (const each of job.loads) findings.push(await load(browser, each));
await browser.close();
process.stdout.write(JSON.stringify(findings));
