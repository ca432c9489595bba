// One layer of ours beside onnxruntime-web's, in turns, in one browser; `cargo xtask bench-rivals`
// runs it. CHATREX_RIVALS is `{ shapes, cases, repeats, without, json }`.

import { writeFile } from "node:fs/promises";
import { needed } from "./flags.mjs";
import { measuring } from "./measure.mjs";

const { json, ...options } = JSON.parse(needed("CHATREX_RIVALS"));

const { adapter, features, runtime, rows } = await measuring("rivals.html", async (page) => {
  await page.waitForFunction(() => self.measure);
  return page.evaluate((options) => self.measure(options), options);
});
const [name, software] = adapter;
const wanted = ["shader-f16", "subgroups"].map((feature) => `${feature} ${features.includes(feature) ? "yes" : "no"}`);
console.log(`onnxruntime-web ${runtime} beside ours on ${name} (${wanted.join(", ")})`);
if (options.without.length) console.log(`onnxruntime-web is not told of ${options.without.join(", ")}`);
if (software) console.log("software adapter: not a GPU number");
console.log(
  "4-bit weights in groups of 32 (ours 4.5 bits with scales, theirs 5.0), activations, keys and values f32;\n" +
    "acc0 computes with f32, acc4 with 8-bit activations. Milliseconds are medians; a ratio is theirs / ours,\n" +
    "above 1 where ours is faster. Errors are against float64.",
);
const cell = (value, digits, width) => value.toFixed(digits).padStart(width);
console.log(
  `${"layer".padEnd(7)}${"case".padEnd(18)}${"ours ms".padStart(11)}${"acc0 ms".padStart(11)}${"acc4 ms".padStart(11)}` +
    `${"acc0/ours".padStart(11)}${"acc4/ours".padStart(11)}${"errors ours, acc0, acc4".padStart(32)}`,
);
let good = true;
for (const row of rows) {
  const all = [row.ours, row.acc0, row.acc4];
  const ratio = (theirs) => {
    if (theirs.agrees && row.ours.agrees) return cell(theirs.milliseconds / row.ours.milliseconds, 2, 11);
    good = false;
    return "differs".padStart(11);
  };
  console.log(
    `${row.shape.padEnd(7)}${row.case.padEnd(18)}${all.map((one) => cell(one.milliseconds, 1, 11)).join("")}` +
      `${ratio(row.acc0)}${ratio(row.acc4)}${all.map((one) => one.worst.toExponential(1)).join(" ").padStart(32)}`,
  );
}
if (json) await writeFile(json, JSON.stringify({ adapter: name, software, features, runtime, rows }));
if (!rows.length) {
  console.error("bench-rivals: no case was chosen");
  process.exit(2);
}
process.exit(good ? 0 : 1);
