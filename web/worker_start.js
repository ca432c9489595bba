// Starts the engine's worker; keeps messages that arrive before the program is ready.
import "./timestamp_query.js";
import init, { check, receive } from "./worker.js";

const early = [];
self.onmessage = (message) => early.push(message.data);
try {
  await init();
  self.onmessage = (message) => receive(message.data);
  early.forEach(receive);
  if (self.location.search === "?check") self.postMessage(await check());
} catch (error) {
  const fault = {
    kind: "Device",
    place: "engine",
    what: `the program could not start (${error})`,
    advice: "Reload the page, or try a newer browser",
  };
  self.postMessage(JSON.stringify({ Failed: { turn: null, picture: null, fault } }));
}
