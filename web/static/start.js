// Starts the page. The content security policy blocks inline scripts, hence this file.
import init from "./page.js";

if ("serviceWorker" in navigator) {
  const registered = navigator.serviceWorker.register("./service_worker.js");
  registered.catch((error) => console.warn("not kept for offline use:", error));
}
await init();
