// The evaluation of `chatrex eval` on an engine in a browser's worker: the program draws the scenes,
// asks, and compares what it hears with the processor's answers.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { PROGRAM } from "./page.mjs";

const SEED = 900_000;

// Loads `model`, an address, in a worker of the page's and gives the event that ends it. From then on
// `self.engine(request, hex)` gives the event that ends any request.
function start(page, model) {
  return page.evaluate((model) => {
    const ends = ["Ready", "Proposed", "Done", "Failed"];
    const worker = new Worker("./worker_start.js", { type: "module" });
    self.engine = (request, hex) =>
      new Promise((done, fail) => {
        worker.onerror = (error) => fail(new Error(error.message));
        worker.onmessage = ({ data: [json] }) => {
          if (ends.includes(Object.keys(JSON.parse(json))[0])) done(json);
        };
        const bytes = Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
        worker.postMessage([JSON.stringify(request), bytes.buffer]);
      });
    return self.engine({ Load: { model, device: "wgpu", memory: null } }, "");
  }, model);
}

// What `chatrex eval --against -` reports of `count` scenes, and what the worker said when it was
// ready. `folder` is the same model for the program; without it both take nano.
export async function judge(page, { model, folder, count }) {
  const ready = await start(page, model);
  const words = ["eval", "--count", count, "--seed", SEED, "--device", "cpu", "--against", "-", "--json"];
  const program = spawn(PROGRAM, [...words.map(String), ...(folder ? ["--model", folder] : [])], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const closed = once(program, "close");
  const answer = (event) => program.stdin.write(`${event}\n`);
  answer(ready);
  let report;
  for await (const line of createInterface({ input: program.stdout })) {
    const said = JSON.parse(line);
    if (Array.isArray(said)) answer(await page.evaluate((said) => self.engine(...said), said));
    else report = said;
  }
  assert.deepEqual(await closed, [0, null]);
  return { report, ready: JSON.parse(ready).Ready };
}
