// One layer in this project's worker and in onnxruntime-web, alternating in one browser, for
// `cargo xtask bench-rivals`. CHATREX_RIVALS is `{ shapes, cases, repeats, without, json }`.

import { writeFile } from "node:fs/promises";
import { needed } from "./flags.mjs";
import { measuring } from "./measure.mjs";

const { json, ...options } = JSON.parse(needed("CHATREX_RIVALS"));

const { adapter, features, subgroup, runtime, rows } = await measuring("rivals.html", async (page) => {
  await page.waitForFunction(() => self.measure);
  return page.evaluate((options) => self.measure(options), options);
});
if (!rows.length) {
  console.error("bench-rivals: no case was chosen");
  process.exit(2);
}
const [name, software] = adapter;
const available = ["shader-f16", "subgroups"].map((feature) => `${feature} ${features.includes(feature) ? "yes" : "no"}`);
console.log(`onnxruntime-web ${runtime} and this project on ${name} (${available.join(", ")})`);
if (options.without.length) console.log(`hidden from onnxruntime-web: ${options.without.join(", ")}`);
if (software) console.log("software adapter: not a GPU number");
console.log(
  "d896, d2048, d4096: a decoder layer and the head, q4 weights in groups of 32 (ours 4.5 bits with scales,\n" +
    "theirs 5.0), activations and KV cache in f32; acc0 computes in f32, acc4 with 8-bit activations.\n" +
    "clip-l, convnext: a block of a tower, weights and activations in f32. Milliseconds are medians including\n" +
    "readback, without compilation and loading. The ratio is theirs / ours: above 1, ours is faster. Errors are the\n" +
    "largest differences from f64; the ratio is given only if both outputs agree with it.",
);
const cell = (value, digits, width) => value.toFixed(digits).padStart(width);
console.log(
  `${"layer".padEnd(14)}${"case".padEnd(18)}${"ours ms".padStart(11)}  ${"theirs".padEnd(6)}${"ms".padStart(11)}` +
    `${"theirs/ours".padStart(13)}${"error ours".padStart(12)}${"theirs".padStart(9)}`,
);
let good = true;
let hidden = false;
for (const { shape, case: work, ours, rivals } of rows) {
  for (const [variant, theirs] of Object.entries(rivals)) {
    const agrees = ours.agrees && theirs.agrees;
    good &&= agrees;
    const without = theirs.hidden.length > options.without.length;
    hidden ||= without;
    const ratio = agrees ? cell(theirs.milliseconds / ours.milliseconds, 2, 13) : "differs".padStart(13);
    const errors = [ours.worst.toExponential(1).padStart(12), theirs.worst.toExponential(1).padStart(9)];
    console.log(
      `${shape.padEnd(14)}${work.padEnd(18)}${cell(ours.milliseconds, 1, 11)}  ${variant.padEnd(6)}` +
        `${cell(theirs.milliseconds, 1, 11)}${ratio}${errors.join("")}${without ? "  *" : ""}`,
    );
  }
}
if (hidden) {
  console.log(
    `* Without subgroups: with them onnxruntime-web's output is wrong here, because its flash attention kernel does\n` +
      `  not support subgroups of ${subgroup ?? "this size"}. Without them attention is matmuls and a softmax, and acc4\n` +
      `  computes in f32 too.`,
  );
}
if (json) await writeFile(json, JSON.stringify({ adapter: name, software, features, subgroup, runtime, rows }));
process.exit(good ? 0 : 1);
