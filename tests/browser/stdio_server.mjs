// Serves an engine in a browser's worker to `chatrex eval --against -`: requests come from the standard
// output of the program, events go to its standard input.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { PROGRAM } from "./page.mjs";

const SEED = 900_000;

// Loads `model`, an address, in a worker of the page and returns the event that ends the request. Then
// `self.engine(request, hex)` returns the event that ends any request.
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

// The report of `chatrex eval --against -` on `count` scenes, and the worker's `Ready` event. `folder` is
// the same model for the program; without it both use nano.
export async function evaluate(page, { model, folder, count }) {
  const ready = await start(page, model);
  const args = ["eval", "--count", count, "--seed", SEED, "--device", "cpu", "--against", "-", "--json"];
  const program = spawn(PROGRAM, [...args.map(String), ...(folder ? ["--model", folder] : [])], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const closed = once(program, "close");
  const answer = (event) => program.stdin.write(`${event}\n`);
  answer(ready);
  let report;
  for await (const line of createInterface({ input: program.stdout })) {
    const message = JSON.parse(line);
    if (Array.isArray(message)) answer(await page.evaluate((message) => self.engine(...message), message));
    else report = message;
  }
  assert.deepEqual(await closed, [0, null]);
  return { report, ready: JSON.parse(ready).Ready };
}
