// A page without a framework that uses the JavaScript module: it prints the boxes of a picture and an
// answer about the first one.

import { ChatRex, ChatRexError } from "./js/chatrex.js";

const shown = (name) => document.querySelector(`[data-testid="${name}"]`);

async function run() {
  const model = await ChatRex.load("models/nano/", { device: "cpu" });
  const response = await fetch("samples/scene.png");
  const boxes = await model.look(await response.blob());
  for (const { box, score } of boxes) {
    const item = document.createElement("li");
    item.textContent = JSON.stringify({ box, score });
    shown("boxes").append(item);
  }
  for await (const spans of model.ask("What is <obj0>?", { boxes })) {
    shown("answer").textContent = spans.map(({ text }) => text).join("");
  }
  // The test calls more functions of the module.
  Object.assign(globalThis, { ChatRex, ChatRexError, model, boxes });
}

await run().then(
  () => (shown("state").textContent = "Done"),
  (error) => (shown("state").textContent = `Failed: ${error}`),
);
