// Measures in this worker, for `cargo xtask bench` and `cargo xtask bench-rivals`. A message is the
// array `[json]`, and so are the answers.
import { bench, open_layer, run_layer } from "./worker.js";

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp/i;

let dispatches = 0;
self.countedDispatches = () => dispatches;
for (const name of ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"]) {
  const plain = GPUComputePassEncoder.prototype[name];
  GPUComputePassEncoder.prototype[name] = function (...words) {
    dispatches += 1;
    return plain.apply(this, words);
  };
}

// The adapter that the engine will ask for: its name, and whether it is software.
async function adapter() {
  const found = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!found) throw "WebGPU: this browser has no adapter. Start it with other flags";
  const { vendor, architecture, device, description, isFallbackAdapter } = found.info;
  const name = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return [name || "WebGPU adapter", Boolean(isFallbackAdapter) || SOFTWARE.test(name)];
}

const tasks = {
  async bench(ask) {
    const [report, table] = await bench(JSON.stringify({ ...ask, adapter: await adapter() }));
    return { report: JSON.parse(report), table };
  },
  async open(address) {
    const response = await fetch(address);
    if (!response.ok) throw `${address}: the host answers ${response.status}`;
    await open_layer(address, new Uint8Array(await response.arrayBuffer()));
    return {};
  },
  async adapter() {
    return { adapter: await adapter() };
  },
  async run(work) {
    const begun = performance.now();
    const output = await run_layer(JSON.stringify(work));
    return { milliseconds: performance.now() - begun, output: [...output] };
  },
};

self.onmessage = async ({ data: [json] }) => {
  const [task, words] = Object.entries(JSON.parse(json))[0];
  const done = await tasks[task](words).catch((fault) => ({ fault: String(fault) }));
  self.postMessage([JSON.stringify({ done })]);
};
self.postMessage([JSON.stringify({ ready: true })]);
