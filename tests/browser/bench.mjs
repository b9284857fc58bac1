// Times a page in a headless Chromium: node bench.mjs page.html STEPS. Prints JSON; CPU is the renderer's main thread, in ms.
import puppeteer from "puppeteer-core";

const [file, steps] = [process.argv[2], Number(process.argv[3])];
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  protocolTimeout: 300_000,
  args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--enable-precise-memory-info"],
});
const page = await browser.newPage();
await page.setViewport({ width: 1366, height: 768 });
const client = await page.createCDPSession();
await client.send("Performance.enable", { timeDomain: "threadTicks" });

async function measured() {
  const { metrics } = await client.send("Performance.getMetrics");
  const value = (name) => metrics.find((metric) => metric.name === name).value;
  return { cpu: 1000 * value("TaskDuration"), heap: value("JSHeapUsedSize") / 2 ** 20 };
}

await page.evaluateOnNewDocument(() => {
  const seen = setInterval(() => {
    if (!document.querySelector("#plane0 .main-svg")) return;
    window.firstPlane = performance.now();
    clearInterval(seen);
  }, 10);
});
await page.goto(`file://${file}`, { waitUntil: "load" });
await page.evaluate(() => document.getElementById("planes").scrollIntoView());
await page.waitForFunction(() => window.firstPlane, { timeout: 120_000 });
const begin = await page.evaluate(() => ({
  cards: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
  plane: window.firstPlane,
}));
const frames = () => page.evaluate(async () => {
  await window.lossPage.settled();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
});
await frames();

const positions = await page.evaluate(() => Number(document.getElementById("position").max) + 1);
async function times(dragging) {
  const [cpu, wall] = [[], []];
  for (let i = 0; i < steps; i++) {
    const before = await measured();
    const start = performance.now();
    await page.evaluate((to, drag) => window.lossPage.go(to, drag), (i * 7) % positions, dragging);
    await frames();
    wall.push(performance.now() - start);
    cpu.push((await measured()).cpu - before.cpu);
  }
  return { cpu, wall };
}
const drag = await times(true);
const release = await times(false);
const decode = await page.evaluate(async () => {
  const spent = [];
  for (const name of window.lossPage.names()[0].slice(0, 20)) {
    const start = performance.now();
    await window.lossPage.decodeAfresh(name);
    spent.push(performance.now() - start);
  }
  return spent;
});
const { heap } = await measured();
process.stdout.write(JSON.stringify({ ...begin, drag, release, decode, heap }));
await browser.close();
