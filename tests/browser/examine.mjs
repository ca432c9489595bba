// Activations of every stage of a model on a browser's GPU; `chatrex examine` compares them with the
// CPU's. Not part of the tests: `cargo xtask manual examine FOLDER` runs it.

import { execFileSync } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startHost } from "./faults.mjs";
import { visit } from "./manager.mjs";
import { PICTURES, PROGRAM } from "./page.mjs";

const FOLDER = process.env.CHATREX_FOLDER;
const DAY = 86_400_000;
const SIZE = [1066, 800];

test("the browser agrees with the CPU at every stage", { timeout: DAY }, async () => {
  const host = await startHost();
  const files = new Map();
  for (const name of await readdir(FOLDER)) files.set(name, await readFile(join(FOLDER, name)));
  const folder = host.add("examined", files);
  const browser = await visit(host, { webgpu: true });
  try {
    const { page } = browser;
    page.setDefaultTimeout(DAY);
    await page.goto(`${host.url}start.js`);
    const start = Date.now();
    page.on("console", (message) => console.log(((Date.now() - start) / 1000).toFixed(0), "s", message.text()));
    const answer = await page.evaluate(
      ([model, [width, height], base]) =>
        new Promise((done, fail) => {
          const worker = new Worker(`${base}worker_dev_start.js?examine`, { type: "module" });
          worker.onerror = (event) => fail(new Error(event.message));
          worker.onmessage = ({ data: [text] }) => {
            if (text.includes('"Look"')) console.log(text);
            else if (text.includes('"stages"')) done(text);
            else if (text.includes('"Failed"')) fail(new Error(text));
            else if (text.includes("Hello")) worker.postMessage([JSON.stringify([model, width, height])]);
          };
        }),
      [folder.address, SIZE, host.url],
    );
    const file = join(PICTURES, "examined.json");
    await writeFile(file, answer);
    const args = ["examine", "--model", FOLDER, "--device", "cpu", "--against", file];
    console.log(execFileSync(PROGRAM, args, { encoding: "utf8" }));
  } finally {
    await browser.close();
    await host.close();
  }
});
