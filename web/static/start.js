// Starts the page. A file of its own, for the content security policy refuses inline scripts.
import init from "./page.js";

if ("serviceWorker" in navigator) {
  const registered = navigator.serviceWorker.register("./service_worker.js");
  registered.catch((error) => console.warn("not kept for offline use:", error));
}
await init();
