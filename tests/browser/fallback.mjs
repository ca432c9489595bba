// Times of the engine on the CPU in a browser, beside another build: loading, boxes and an answer.
//
//     CHATREX_BROWSER=/path/to/chrome node tests/browser/fallback.mjs SITE OTHER_SITE [MODEL]
//
// SITE and OTHER_SITE are folders that `cargo xtask dist --out` writes; both load web/js of this tree and their own
// engine. MODEL is mini by default. The two take turns in one browser; a ratio above 1 means that SITE is faster.
// Optional: CHATREX_REPEATS (7).

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { median } from "./measure.mjs";
import { site } from "./origins.mjs";
import { newBrowser } from "./profile.mjs";

const [first, second, model = "mini"] = process.argv.slice(2);
const REPEATS = Number(process.env.CHATREX_REPEATS ?? 7);
const LONG = 600_000;
const QUESTION = "What is in this picture?";

if (!second) {
  console.error("name the folders of two sites");
  process.exit(2);
}

const file = (path) => readFile(fileURLToPath(new URL(path, import.meta.url)));
const extra = {
  "empty.html": "<!doctype html><title>fallback</title>",
  "module/chatrex.js": await file("../../web/js/chatrex.js"),
  "picture.jpg": await file("../../web/static/samples/coffee.jpg"),
};
for (const name of Object.keys(extra)) extra[name] = { body: extra[name] };

const { context, close } = await newBrowser({ serviceWorkers: "block" });
context.setDefaultTimeout(LONG);

async function open(folder) {
  const server = await site({ folder: resolve(folder), extra });
  const page = await context.newPage();
  await page.goto(`${server.url}/empty.html`);
  return { server, page };
}

// Milliseconds of one load, look and answer of a new engine; the answer is greedy.
const visit = ({ page, server }) =>
  page.evaluate(
    async ([address, model, question]) => {
      const { ChatRex } = await import(`${address}/module/chatrex.js`);
      const times = {};
      let started = performance.now();
      const lap = (name) => {
        times[name] = performance.now() - started;
        started = performance.now();
      };
      const workerUrl = `${address}/worker_start.js`;
      const engine = await ChatRex.load(`${address}/models/${model}`, { device: "cpu", workerUrl });
      lap("load");
      const picture = await (await fetch(`${address}/picture.jpg`)).blob();
      started = performance.now();
      const boxes = await engine.look(picture);
      lap("boxes");
      const { spans } = await engine.ask(question, { boxes, sampling: { temperature: 0 } }).answer;
      lap("answer");
      engine.dispose();
      return { times, text: JSON.stringify(spans) };
    },
    [server.url, model, QUESTION],
  );

const sites = [await open(first), await open(second)];
const rows = [{}, {}];
const texts = [];
for (let i = -1; i < REPEATS; i++) {
  for (const at of i % 2 ? [1, 0] : [0, 1]) {
    const { times, text } = await visit(sites[at]);
    texts[at] = text;
    if (i < 0) continue;
    for (const [name, time] of Object.entries(times)) (rows[at][name] ??= []).push(time);
  }
}
for (const name of Object.keys(rows[0])) {
  const ratios = rows[0][name].map((time, i) => rows[1][name][i] / time);
  const [ours, others] = rows.map((row) => median(row[name]).toFixed(0));
  console.log(`${name}: ${ours} ms, other ${others} ms, other / this ${median(ratios).toFixed(2)} (${ratios.map((r) => r.toFixed(2)).join(" ")})`);
}
console.log(texts[0] === texts[1] ? "equal answers" : `other answers:\n  ${texts.join("\n  ")}`);
await close();
for (const { server } of sites) await server.close();
