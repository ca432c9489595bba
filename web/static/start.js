// Starts the page. The content security policy blocks inline scripts, hence this file.
import "./network.js";
import init from "./page.js";

// In a frame of another page nothing is stored.
const isEmbedded = new URLSearchParams(location.search).get("embed") === "1";
if ("serviceWorker" in navigator && !isEmbedded) {
  const registered = navigator.serviceWorker.register("./service_worker.js");
  registered.catch((error) => console.warn("not kept for offline use:", error));
}
await init();
