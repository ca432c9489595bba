// Measures in this worker, for `cargo xtask bench` and `cargo xtask bench-rivals`. Messages and
// answers are arrays `[json]`.
import { bench, described_adapter, open_layer, run_layer } from "./worker_dev.js";

let dispatches = 0;
self.countedDispatches = () => dispatches;
for (const name of ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"]) {
  const original = GPUComputePassEncoder.prototype[name];
  GPUComputePassEncoder.prototype[name] = function (...sizes) {
    dispatches += 1;
    return original.apply(this, sizes);
  };
}

// The adapter that the engine will use: its name, and whether the browser calls it a fallback.
async function requestedAdapter() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw "WebGPU: this browser has no adapter. Start it with other flags";
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const name = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return { name: name || "WebGPU adapter", fallback: Boolean(isFallbackAdapter) };
}

const tasks = {
  async bench(request) {
    const [report, table] = await bench(JSON.stringify({ ...request, adapter: await requestedAdapter() }));
    return { report: JSON.parse(report), table };
  },
  async open(address) {
    const response = await fetch(address);
    if (!response.ok) throw `${address}: HTTP status ${response.status}`;
    await open_layer(address, new Uint8Array(await response.arrayBuffer()));
    return {};
  },
  async adapter() {
    const { name, fallback } = await requestedAdapter();
    return { adapter: described_adapter(name, fallback) };
  },
  async run(work) {
    const start = performance.now();
    const output = await run_layer(JSON.stringify(work));
    return { milliseconds: performance.now() - start, output: [...output] };
  },
};

self.onmessage = async ({ data: [json] }) => {
  const [task, argument] = Object.entries(JSON.parse(json))[0];
  const done = await tasks[task](argument).catch((fault) => ({ fault: String(fault) }));
  self.postMessage([JSON.stringify({ done })]);
};
self.postMessage([JSON.stringify({ ready: true })]);
