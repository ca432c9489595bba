// The rows of `chatrex bench` in a browser, for `cargo xtask bench`. CHATREX_BENCH is
// `{ plan, model, json }`.

import { writeFile } from "node:fs/promises";
import { needed } from "./flags.mjs";
import { measuring } from "./measure.mjs";

const { json, ...request } = JSON.parse(needed("CHATREX_BENCH"));

const done = await measuring("start.js", (page) =>
  page.evaluate(
    (request) =>
      new Promise((resolve, reject) => {
        const worker = new Worker(new URL("worker_dev_start.js?bench", location.href), { type: "module" });
        const model = request.model && new URL(request.model, location.href).href;
        worker.onerror = (event) => reject(new Error(event.message));
        worker.onmessage = ({ data: [text] }) => {
          const event = JSON.parse(text);
          if (event.ready) worker.postMessage([JSON.stringify({ bench: { ...request, model } })]);
          if (event.row) console.log(event.row);
          if (event.Failed) reject(new Error(JSON.stringify(event.Failed.fault)));
          if (event.done) resolve(event.done);
        };
      }),
    request,
  ),
);
if (done.fault) {
  console.error(`bench: ${done.fault}`);
  process.exit(2);
}
if (json === "-") console.log(JSON.stringify(done.report));
else console.log(done.table);
if (json && json !== "-") await writeFile(json, JSON.stringify(done.report));
