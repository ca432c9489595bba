// Starts the engine's worker; keeps messages that arrive before the program is ready.
import "./timestamp_query.js";
import { askForSubgroups } from "./subgroups.js";
import init, { check, examine, parity, receive, use_subgroups } from "./worker.js";

const early = [];
self.onmessage = (message) => early.push(message.data);
await init();
askForSubgroups(use_subgroups);
self.onmessage = (message) => receive(message.data);
early.forEach((message) => receive(message));
if (self.location.search === "?product") self.postMessage([await check(false)]);
if (self.location.search === "?check") self.postMessage([await check(true)]);
if (self.location.search === "?examine") {
  self.onmessage = async ({ data }) => {
    const answer = async () => examine(...JSON.parse(data[0]));
    self.postMessage([await answer().catch((fault) => `"Failed": ${fault}`)]);
  };
  self.postMessage(['"Hello"']);
}
if (self.location.search === "?parity") {
  self.onmessage = async ({ data: [json, files, halves] }) => {
    for (const name of JSON.parse(json)) {
      const answer = async () => parity(name, files, halves);
      self.postMessage([await answer().catch((fault) => JSON.stringify({ fault: String(fault) }))]);
    }
  };
  self.postMessage(['"Hello"']);
}
if (["?bench", "?layer"].includes(self.location.search)) await import("./worker_bench.js");
