// Runs in the browser: one layer in our worker and in onnxruntime-web, alternately.
// `tests/reference/layer.py` describes the files. Both outputs are compared with float64 references
// before the timing.
//
// The flash attention kernel of onnxruntime-web reduces across a subgroup and is wrong for subgroups
// of four invocations, as on SwiftShader. If its outputs differ, it runs again in an instance that
// has no subgroups feature, and that instance is timed.
//
// The JSPI build waits for the GPU with less overhead; it is used if the browser supports it.

const BUILD = "Suspending" in WebAssembly ? "jspi" : "webgpu";
const ALL_FEATURES = [];
const NO_SUBGROUPS = ["subgroups"];
const COSINE = 0.999;

// Our worker, one request at a time.
class Ours {
  static start() {
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL("worker_dev_start.js?layer", location.href), { type: "module" });
      worker.onerror = (event) => reject(new Error(`ours: ${event.message}`));
      worker.onmessage = () => resolve(Object.assign(new Ours(), { worker }));
    });
  }
  request(task, argument) {
    return new Promise((resolve, reject) => {
      this.worker.onerror = (event) => reject(new Error(`ours: ${event.message}`));
      this.worker.onmessage = ({ data: [text] }) => {
        const { done } = JSON.parse(text);
        if (done.fault) reject(new Error(`ours: ${done.fault}`));
        else resolve(done);
      };
      this.worker.postMessage([JSON.stringify({ [task]: argument })]);
    });
  }
  // Fills the KV cache, which is not part of the decode time.
  async prepare({ decode }) {
    if (decode) await this.run({ prefill: decode });
  }
  run(work) {
    return this.request("run", work);
  }
}

const features = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "features").get;
const instances = new Map();

// An instance of onnxruntime whose device lacks the features `hidden`. Control over the subgroup size
// implies subgroups.
async function runtime(hidden) {
  const isVisible = (name) => !hidden.includes(name) && !(hidden.includes("subgroups") && name.startsWith("subgroup-"));
  Object.defineProperty(GPUAdapter.prototype, "features", {
    configurable: true,
    enumerable: true,
    get() {
      return new Set([...features.call(this)].filter(isVisible));
    },
  });
  const key = hidden.join("+");
  if (!instances.has(key)) {
    const ort = await import(`./ort/ort.${BUILD}.min.mjs?without=${key}`);
    ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
    ort.env.webgpu.powerPreference = "high-performance";
    instances.set(key, ort);
  }
  return instances.get(key);
}

// A graph in onnxruntime-web on WebGPU.
class Theirs {
  static async start(folder, name, { meta, x, hidden }) {
    const ort = await runtime(hidden);
    const address = (file) => new URL(`${folder}/${file}`, location.href).href;
    const weights = "ours.safetensors";
    const session = await ort.InferenceSession.create(address(`${name}.onnx`), {
      executionProviders: ["webgpu"],
      externalData: [{ path: weights, data: address(weights) }],
      ...this.options,
    });
    return Object.assign(new this(), { ort, session, meta, x }).ready();
  }
  async ready() {
    return this;
  }
  async prepare() {}
  async close() {
    await this.session.release();
  }
}

// The KV cache stays on the GPU.
class TheirDecoder extends Theirs {
  static options = { preferredOutputLocation: { new_k: "gpu-buffer", new_v: "gpu-buffer" } };
  async runTokens(first, count, past) {
    const { hidden_size: width, num_key_value_heads: groups, head_dim: head } = this.meta.config;
    const { Tensor } = this.ort;
    const empty = () => new Tensor("float32", new Float32Array(0), [1, groups, 0, head]);
    const total = first + count;
    return this.session.run({
      x: new Tensor("float32", this.x.slice(first * width, total * width), [1, count, width]),
      past_k: past?.new_k ?? empty(),
      past_v: past?.new_v ?? empty(),
      seqlens_k: new Tensor("int32", [total - 1], [1]),
      total: new Tensor("int32", [total], []),
    });
  }
  dropCache() {
    this.past?.new_k.dispose();
    this.past?.new_v.dispose();
    this.past = undefined;
  }
  async prepare({ decode }) {
    this.dropCache();
    if (decode) this.past = await this.runTokens(0, decode);
  }
  async run({ prefill, decode }) {
    const begun = performance.now();
    const found = prefill ? await this.runTokens(0, prefill) : await this.runTokens(decode, 1, this.past);
    const output = [...found.lm_head.data];
    const milliseconds = performance.now() - begun;
    found.new_k.dispose();
    found.new_v.dispose();
    return { milliseconds, output };
  }
  async close() {
    this.dropCache();
    await super.close();
  }
}

// The input stays on the GPU.
class TheirTowerLayer extends Theirs {
  async ready() {
    const device = await this.ort.env.webgpu.device;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    this.buffer = device.createBuffer({ size: this.x.byteLength, usage });
    device.queue.writeBuffer(this.buffer, 0, this.x);
    this.input = this.ort.Tensor.fromGpuBuffer(this.buffer, { dataType: "float32", dims: this.meta.shape });
    return this;
  }
  async run() {
    const begun = performance.now();
    const { rows } = await this.session.run({ x: this.input });
    const output = [...rows.data];
    return { milliseconds: performance.now() - begun, output };
  }
  async close() {
    await super.close();
    this.buffer.destroy();
  }
}

function compare(output, expected, limit) {
  let [dot, a, b, worst, largest] = [0, 0, 0, 0, 0];
  for (const [i, value] of output.entries()) {
    dot += value * expected[i];
    a += value * value;
    b += expected[i] * expected[i];
    worst = Math.max(worst, Math.abs(value - expected[i]));
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  const cosine = dot / Math.sqrt(a * b);
  const finite = output.length === expected.length && output.every(Number.isFinite);
  return { cosine, worst, agrees: finite && cosine > COSINE && worst <= limit * largest };
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

function nameOf({ prefill, decode }) {
  if (prefill) return `prefill ${prefill}`;
  return decode ? `decode after ${decode}` : "forward";
}

async function shape(ours, folder, { cases, repeats, adapter, without }) {
  const get = async (name) => {
    const response = await fetch(`${folder}/${name}`);
    if (!response.ok) throw new Error(`${folder}/${name}: status ${response.status}`);
    return response;
  };
  const meta = await (await get("meta.json")).json();
  const x = new Float32Array(await (await get("x.f32")).arrayBuffer());
  await ours.request("open", new URL(`${folder}/ours.safetensors`, location.href).href);
  const Runner = meta.family === "decoder" ? TheirDecoder : TheirTowerLayer;
  const opened = new Map();
  const start = async (who, hidden) => {
    const key = [who, ...hidden].join();
    if (!opened.has(key)) opened.set(key, await Runner.start(folder, who, { meta, x, hidden }));
    return opened.get(key);
  };
  const rows = [];
  for (const { work, expected } of meta.cases) {
    const name = nameOf(work);
    if (cases.length && !cases.some((wanted) => name.startsWith(wanted))) continue;
    const first = async (who, runner, hidden) => {
      await runner.prepare(work);
      const { milliseconds, output } = await runner.run(work);
      const found = { runner, ...compare(output, expected, meta.limits[who]), cold: milliseconds, times: [], hidden };
      const label = hidden.length ? ` without ${hidden.join(", ")}` : "";
      console.log(
        `${meta.name} ${name}: ${who}${label} ${found.agrees ? "agrees" : "differs"}, cosine ${found.cosine}, ` +
          `error ${found.worst.toExponential(1)}, first run ${milliseconds.toFixed(1)} ms`,
      );
      return found;
    };
    const found = {};
    for (const who of Object.keys(meta.limits)) {
      if (who === "ours") {
        found.ours = await first(who, ours, []);
        continue;
      }
      for (const more of [ALL_FEATURES, NO_SUBGROUPS]) {
        const hidden = [...new Set([...without, ...more])];
        const again = await first(who, await start(who, hidden), hidden);
        if (!found[who] || again.agrees) found[who] = again;
        if (found[who].agrees) break;
      }
    }
    const all = Object.values(found);
    const times = repeats || (adapter[1] ? (found.ours.cold > 5000 ? 3 : 5) : 21);
    for (const { runner } of all) await runner.prepare(work);
    for (let turn = 0; turn < times; turn++) {
      for (const one of all) one.times.push((await one.runner.run(work)).milliseconds);
    }
    for (const one of all) {
      one.milliseconds = median(one.times);
      delete one.runner;
    }
    const { ours: own, ...rivals } = found;
    rows.push({ shape: meta.name, case: name, ours: own, rivals });
  }
  for (const runner of opened.values()) await runner.close();
  return rows;
}

// `{ shapes, cases, repeats, without }` to `{ adapter: [name, software], features, rows }`.
self.measure = async (options) => {
  const found = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  const ours = await Ours.start();
  const supported = found ? [...features.call(found)] : [];
  const rows = [];
  let adapter;
  for (const name of options.shapes) {
    adapter ??= (await ours.request("adapter", null)).adapter;
    rows.push(...(await shape(ours, `layers/${name}`, { ...options, adapter })));
  }
  const { info } = found ?? {};
  const subgroup = info?.subgroupMinSize;
  const [version] = [...instances.values()].map((ort) => ort.env.versions.web);
  const runtime = `${version} (${BUILD})`;
  return { adapter, features: supported, subgroup, runtime, rows };
};
