// Starts the worker for tests and measurements, which is never part of the published site. The query
// of its address selects what it does:
//
// - none: the messages of the page, as the shipped worker handles them
// - `?product`, `?check`: posts the report of a matrix product; `?check` also sweeps every kernel
// - `?examine`: `[json]` of model, width and height -> activations
// - `?parity`: `[json of fixture names, files, whether the KV cache is f16]` -> one report per fixture
// - `?bench`, `?layer`: the messages of `worker_bench.js`
import "./timestamp_query.js";
import { askForSubgroups } from "./subgroups.js";
import init, { check, examine, parity, receive, use_subgroups } from "./worker_dev.js";

const READY = '"Hello"';

const modes = {
  "": () => answer(receive),
  "?product": async () => self.postMessage([await check(false)]),
  "?check": async () => self.postMessage([await check(true)]),
  "?examine": () => {
    answer(async ([json]) => {
      const examined = async () => examine(...JSON.parse(json));
      self.postMessage([await examined().catch((fault) => `"Failed": ${fault}`)]);
    });
    self.postMessage([READY]);
  },
  "?parity": () => {
    answer(async ([json, files, f16]) => {
      for (const name of JSON.parse(json)) {
        const report = async () => parity(name, files, f16);
        const failed = (fault) => JSON.stringify({ fault: String(fault) });
        self.postMessage([await report().catch(failed)]);
      }
    });
    self.postMessage([READY]);
  },
  "?bench": () => import("./worker_bench.js"),
  "?layer": () => import("./worker_bench.js"),
};

// Handles every message with `handle`, those that arrived early first.
function answer(handle) {
  self.onmessage = (message) => handle(message.data);
  early.forEach((message) => handle(message));
}

const early = [];
self.onmessage = (message) => early.push(message.data);
await init();
askForSubgroups(use_subgroups);
await modes[self.location.search]();
