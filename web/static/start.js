// Starts the page. The content security policy blocks inline scripts, hence this file. Until the page is there,
// the text box of index.html takes words and dropped files wait; the page takes both over and removes `early`.
import "./network.js";

// In a frame of another page nothing is stored, and the host decides what is shown.
const isEmbedded = new URLSearchParams(location.search).get("embed") === "1";
const early = document.getElementById("early");
if (isEmbedded) early.remove();
early.files = [];
early.entries = [];

function untilReady(target, name, handle) {
  const listen = (event) => {
    if (early.isConnected) handle(event);
    else target.removeEventListener(name, listen);
  };
  target.addEventListener(name, listen);
}
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
untilReady(window, "dragover", (event) => hasFiles(event) && event.preventDefault());
untilReady(window, "drop", (event) => {
  if (!hasFiles(event)) return;
  // Else the browser would leave the page for the file.
  event.preventDefault();
  early.files = [...event.dataTransfer.files];
  early.entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
});
untilReady(early, "compositionstart", () => (early.dataset.composing = ""));
untilReady(early, "compositionend", () => delete early.dataset.composing);
untilReady(early, "keydown", (event) => {
  // Nothing can be sent yet.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) event.preventDefault();
});

if ("serviceWorker" in navigator && !isEmbedded) {
  const registered = navigator.serviceWorker.register("./service_worker.js");
  registered.catch((error) => console.warn("not kept for offline use:", error));
}
const { default: init } = await import("./page.js");
await init();
