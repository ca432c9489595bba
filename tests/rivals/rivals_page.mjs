// Runs in the browser: one layer in our worker and in onnxruntime-web, in turns. `tests/reference/
// layer.py` describes the files. Outputs of both are compared with its float64 before anything is
// timed.

import * as ort from "./ort/ort.webgpu.min.mjs";

ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
ort.env.webgpu.powerPreference = "high-performance";

const COSINE = 0.999;

// Our worker, one request at a time.
class Ours {
  static start() {
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL("worker_start.js?layer", location.href), { type: "module" });
      worker.onerror = (event) => reject(new Error(`ours: ${event.message}`));
      worker.onmessage = () => resolve(Object.assign(new Ours(), { worker }));
    });
  }
  ask(task, words) {
    return new Promise((resolve, reject) => {
      this.worker.onerror = (event) => reject(new Error(`ours: ${event.message}`));
      this.worker.onmessage = ({ data: [text] }) => {
        const { done } = JSON.parse(text);
        if (done.fault) reject(new Error(`ours: ${done.fault}`));
        else resolve(done);
      };
      this.worker.postMessage([JSON.stringify({ [task]: words })]);
    });
  }
  run({ decode, tokens }) {
    return this.ask("run", [decode, tokens]);
  }
}

// onnxruntime-web on WebGPU. Keys and values stay on the device.
class Theirs {
  static async start(address, { config, x }) {
    const session = await ort.InferenceSession.create(address, {
      executionProviders: ["webgpu"],
      preferredOutputLocation: { new_k: "gpu-buffer", new_v: "gpu-buffer" },
    });
    return Object.assign(new Theirs(), { session, config, x });
  }
  async feed(first, count, past) {
    const { hidden_size: width, num_key_value_heads: groups, head_dim: head } = this.config;
    const empty = () => new ort.Tensor("float32", new Float32Array(0), [1, groups, 0, head]);
    const total = first + count;
    return this.session.run({
      x: new ort.Tensor("float32", this.x.slice(first * width, total * width), [1, count, width]),
      past_k: past?.new_k ?? empty(),
      past_v: past?.new_v ?? empty(),
      seqlens_k: new ort.Tensor("int32", [total - 1], [1]),
      total: new ort.Tensor("int32", [total], []),
    });
  }
  forget() {
    this.past?.new_k.dispose();
    this.past?.new_v.dispose();
    this.past = undefined;
  }
  async run({ decode, tokens }) {
    if (decode && this.length !== tokens) {
      this.forget();
      this.past = await this.feed(0, tokens);
      this.length = tokens;
    }
    const begun = performance.now();
    const found = decode ? await this.feed(tokens, 1, this.past) : await this.feed(0, tokens);
    const logits = [...found.lm_head.data];
    const milliseconds = performance.now() - begun;
    found.new_k.dispose();
    found.new_v.dispose();
    return { milliseconds, logits };
  }
  async close() {
    this.forget();
    await this.session.release();
  }
}

function compare(logits, expected) {
  let [dot, a, b, worst] = [0, 0, 0, 0];
  for (const [i, value] of logits.entries()) {
    dot += value * expected[i];
    a += value * value;
    b += expected[i] * expected[i];
    worst = Math.max(worst, Math.abs(value - expected[i]));
  }
  const cosine = dot / Math.sqrt(a * b);
  const finite = logits.length === expected.length && logits.every(Number.isFinite);
  return { cosine, worst, agrees: finite && cosine > COSINE };
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

const nameOf = ({ decode, tokens }) => (decode ? `decode after ${tokens}` : `prefill ${tokens}`);

async function shape(ours, folder, { cases, repeats, adapter }) {
  const get = async (name) => {
    const response = await fetch(`${folder}/${name}`);
    if (!response.ok) throw new Error(`${folder}/${name}: the host answers ${response.status}`);
    return response;
  };
  const meta = await (await get("meta.json")).json();
  const x = new Float32Array(await (await get("x.f32")).arrayBuffer());
  await ours.ask("open", new URL(`${folder}/ours.safetensors`, location.href).href);
  const runners = { ours };
  for (const accuracy of [0, 4]) {
    const address = new URL(`${folder}/acc${accuracy}.onnx`, location.href).href;
    runners[`acc${accuracy}`] = await Theirs.start(address, { config: meta.config, x });
  }
  const rows = [];
  for (const one of meta.cases) {
    const name = nameOf(one);
    if (cases.length && !cases.some((wanted) => name.startsWith(wanted))) continue;
    const found = Object.fromEntries(Object.keys(runners).map((who) => [who, { times: [] }]));
    // The tokens before are no part of a decoded one's time; onnxruntime's are read in its `run`.
    if (one.decode) await ours.run({ decode: false, tokens: one.tokens });
    for (const [who, runner] of Object.entries(runners)) {
      const { milliseconds, logits } = await runner.run(one);
      Object.assign(found[who], compare(logits, one.expected), { cold: milliseconds });
      console.log(`${meta.name} ${name}: ${who} agrees to ${found[who].cosine}, first run ${milliseconds.toFixed(1)} ms`);
    }
    const times = repeats || (adapter[1] ? (found.ours.cold > 5000 ? 2 : 5) : 21);
    for (let turn = 0; turn < times; turn++) {
      for (const [who, runner] of Object.entries(runners)) {
        found[who].times.push((await runner.run(one)).milliseconds);
      }
    }
    for (const one of Object.values(found)) one.milliseconds = median(one.times);
    rows.push({ shape: meta.name, case: name, ...found });
  }
  for (const runner of Object.values(runners)) await runner.close?.();
  return rows;
}

// Keeps features from onnxruntime where its kernels for them go wrong on an adapter.
function hide(names) {
  const prototype = GPUAdapter.prototype;
  const features = Object.getOwnPropertyDescriptor(prototype, "features").get;
  Object.defineProperty(prototype, "features", {
    configurable: true,
    enumerable: true,
    get() {
      return new Set([...features.call(this)].filter((name) => !names.includes(name)));
    },
  });
}

// `{ shapes, cases, repeats, without }` to `{ adapter: [name, software], features, rows }`.
self.measure = async (options) => {
  const found = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  const ours = await Ours.start();
  const features = found ? [...found.features] : [];
  hide(options.without);
  const rows = [];
  let adapter;
  for (const name of options.shapes) {
    adapter ??= (await ours.ask("adapter", null)).adapter;
    rows.push(...(await shape(ours, `layers/${name}`, { ...options, adapter })));
  }
  return { adapter, features, runtime: ort.env.versions.web, rows };
};
