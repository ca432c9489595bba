// Starts the engine's worker; keeps messages that arrive before the program is ready.
import "./timestamp_query.js";
import init, { check, examine, receive } from "./worker.js";

const early = [];
self.onmessage = (message) => early.push(message.data);
await init();
self.onmessage = (message) => receive(message.data);
early.forEach((message) => receive(message));
if (self.location.search === "?check") self.postMessage([await check()]);
if (self.location.search === "?examine") {
  self.onmessage = async ({ data }) => {
    const answer = async () => examine(...JSON.parse(data[0]));
    self.postMessage([await answer().catch((fault) => `"Failed": ${fault}`)]);
  };
  self.postMessage(['"Hello"']);
}
if (["?bench", "?layer"].includes(self.location.search)) await import("./worker_bench.js");
