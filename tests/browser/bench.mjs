// The rows of `chatrex bench` in a browser; `cargo xtask bench` runs it. CHATREX_BENCH is
// `{ plan, model, json }`.

import { writeFile } from "node:fs/promises";
import { needed } from "./flags.mjs";
import { measuring } from "./measure.mjs";

const { json, ...ask } = JSON.parse(needed("CHATREX_BENCH"));

const done = await measuring("start.js", (page) =>
  page.evaluate(
    (ask) =>
      new Promise((resolve, reject) => {
        const worker = new Worker(new URL("worker_start.js?bench", location.href), { type: "module" });
        const model = ask.model && new URL(ask.model, location.href).href;
        worker.onerror = (event) => reject(new Error(event.message));
        worker.onmessage = ({ data: [text] }) => {
          const said = JSON.parse(text);
          if (said.ready) worker.postMessage([JSON.stringify({ bench: { ...ask, model } })]);
          if (said.row) console.log(said.row);
          if (said.Failed) reject(new Error(JSON.stringify(said.Failed.fault)));
          if (said.done) resolve(said.done);
        };
      }),
    ask,
  ),
);
if (done.fault) {
  console.error(`bench: ${done.fault}`);
  process.exit(2);
}
if (json === "-") console.log(JSON.stringify(done.report));
else console.log(done.table);
if (json && json !== "-") await writeFile(json, JSON.stringify(done.report));
