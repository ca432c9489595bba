// Starts the page. A file of its own, for the content security policy refuses inline scripts.
import init from "./page.js";

if ("serviceWorker" in navigator) {
  keepOffline().catch((error) => console.warn("not kept for offline use:", error));
}
await init();

// Registers the service worker. A version that was waiting when the page opened takes over at
// once; one that arrives later waits for the next opening, never interrupting an answer.
async function keepOffline() {
  const registration = await navigator.serviceWorker.register("./service_worker.js");
  if (registration.waiting && navigator.serviceWorker.controller) {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    registration.waiting.postMessage("take over");
  }
}
