// The evaluation of a model folder in a browser's worker, compared with the CPU. Not part of the tests:
// `cargo xtask manual eval FOLDER` runs it on CHATREX_COUNT scenes (default 50).

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startHost } from "./faults.mjs";
import { evaluate } from "./stdio_server.mjs";
import { visit } from "./manager.mjs";

const FOLDER = process.env.CHATREX_FOLDER;
const COUNT = Number(process.env.CHATREX_COUNT ?? 50);
const DAY = 86_400_000;

test(`${COUNT} scenes are answered as on the CPU`, { timeout: DAY }, async () => {
  const host = await startHost();
  const files = new Map();
  for (const name of await readdir(FOLDER)) files.set(name, await readFile(join(FOLDER, name)));
  const { address } = host.add("judged", files);
  const browser = await visit(host, { webgpu: true });
  try {
    await browser.page.goto(`${host.url}start.js`);
    const { report, ready } = await evaluate(browser.page, { model: address, folder: FOLDER, count: COUNT });
    console.log(ready.adapter);
    console.table(report.metrics);
    const { questions, same_answers, box_difference } = report;
    console.log({ questions, same_answers, box_difference });
  } finally {
    await browser.close();
    await host.close();
  }
});
