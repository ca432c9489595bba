// ChatRex in a web page: opens a model in a worker, finds boxes in pictures and answers questions about
// them. `chatrex.d.ts` describes the interface and the messages.
//
// A message to the worker is the array `[json, attachment]`, a message of the worker `[json]`. The worker
// handles requests in order and answers each one, so that its replies to `Look` come in that order too.

const MAX_PIXELS = 64_000_000;
const MAX_BOXES = 100;
// Pixels read from the canvas at a time.
const STRIP_PIXELS = 1 << 20;

// Which values a field of `sampling` can have. The engine checks the ranges.
const SAMPLING = {
  temperature: Number.isFinite,
  top_k: (value) => isCount(value),
  top_p: Number.isFinite,
  seed: (value) => isCount(value),
  grammar: (value) => typeof value === "boolean",
  repetition_penalty: Number.isFinite,
};

export class ChatRexError extends Error {
  constructor({ kind, code, place, what, advice }) {
    super(`${place}: ${what}${advice ? `. ${advice}` : ""}`);
    this.name = "ChatRexError";
    Object.assign(this, { kind, code, place, what, advice });
  }
}

export class ChatRex {
  #worker;
  #onProgress;
  #card;
  // Why no request can be sent.
  #ended = fault("Model", "NotReady", "model", "no model is loaded", "Call ChatRex.load");
  #loading = deferred();
  // The requests without a reply: looks in order, answers by the number of their turn.
  #looks = [];
  #asks = new Map();
  // The numbers given so far. The current picture has the highest number; 0 is none.
  #pictures = 0;
  #turns = 0;
  // Settled when the picture of the latest `look` is sent: pictures are sent in the order of the calls.
  #sent = Promise.resolve();

  static async load(url, options = {}) {
    const model = new ChatRex();
    await model.#load(url, options);
    return model;
  }

  get card() {
    return this.#card;
  }

  async #load(url, { device = "auto", memory = null, cache, activations, workerUrl, onProgress, signal }) {
    signal?.throwIfAborted();
    expect("Device", "device", device, ["auto", "wgpu", "cpu"].includes(device));
    expect("Device", "memory", memory, memory === null || isCount(memory, Number.MAX_SAFE_INTEGER));
    expect("Device", "cache", cache, [undefined, "f32", "f16"].includes(cache));
    expect("Device", "activations", activations, [undefined, "f32", "int8"].includes(activations));
    const address = absolute(url);
    this.#onProgress = onProgress;
    this.#start(workerUrl);
    const abort = () => this.#end(signal.reason);
    signal?.addEventListener("abort", abort);
    try {
      this.#send({ Load: { model: address, device, memory, cache, activations } });
      this.#card = await this.#loading.promise;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  #start(workerUrl) {
    try {
      this.#worker =
        workerUrl === undefined
          ? new Worker(new URL("./worker_start.js", import.meta.url), { type: "module" })
          : new Worker(absolute(workerUrl), { type: "module" });
    } catch (cause) {
      throw cause instanceof ChatRexError ? cause : lost(`could not start (${cause.message})`);
    }
    this.#ended = null;
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onmessageerror = () => this.#end(lost("sent an unreadable message", "Protocol"));
    // An event without a message means that a script was not fetched.
    this.#worker.onerror = ({ message }) =>
      this.#end(lost(message ? `stopped (${message})` : "could not be loaded"));
  }

  async look(source, options = {}) {
    this.#check(options);
    const sent = this.#sent.then(async () => {
      const { width, height, rgb } = await pixelsOf(source);
      this.#check(options);
      this.#pictures += 1;
      return { proposed: this.#propose(options, { width, height }, rgb.buffer) };
    });
    this.#sent = sent.catch(ignore);
    const { proposed } = await abortable(sent, options.signal);
    return choose(await abortable(proposed, options.signal), options, this.#card);
  }

  async propose(options = {}) {
    this.#check(options);
    this.#checkPicture();
    const proposed = this.#propose(options);
    return choose(await abortable(proposed, options.signal), options, this.#card);
  }

  // Requests all boxes of the current picture; `pixels` is its size if it is attached.
  #propose({ granularity = "coarse" }, pixels = null, attachment = null) {
    const look = deferred();
    this.#looks.push(look);
    this.#send({ Look: { picture: this.#pictures, pixels, granularity } }, attachment);
    return look.promise;
  }

  ask(question, options = {}) {
    const turn = ++this.#turns;
    const progress = new TurnProgress();
    let stopping = false;
    const stop = () => {
      if (!progress.outcome && !stopping) this.#send({ Stop: { turn } });
      stopping = true;
    };
    const { signal } = options;
    try {
      this.#check(options);
      this.#checkPicture();
      const request = questionOf(question, options, this.#card);
      this.#asks.set(turn, progress);
      this.#send({ Ask: { turn, picture: this.#pictures, ...request } });
    } catch (cause) {
      progress.fail(cause);
    }
    const abort = () => {
      stop();
      this.#asks.delete(turn);
      progress.fail(signal.reason);
    };
    signal?.addEventListener("abort", abort);
    progress.whole.promise.catch(ignore).finally(() => signal?.removeEventListener("abort", abort));
    return new Turn(progress, stop);
  }

  dispose() {
    this.#end(fault("Device", "Cancelled", "model", "was disposed", ""));
  }

  // Throws if no request can be sent or the options of a request cannot be used.
  #check({ granularity = "coarse", signal }) {
    if (this.#ended) throw this.#ended;
    signal?.throwIfAborted();
    expect("Picture", "granularity", granularity, ["fine", "coarse"].includes(granularity));
  }

  #checkPicture() {
    if (this.#pictures > 0) return;
    throw fault("Picture", "NotReady", "picture", "there is none", "Await look first");
  }

  #send(request, attachment = null) {
    this.#worker.postMessage([JSON.stringify(request), attachment], attachment ? [attachment] : []);
  }

  // Stops the worker. Every pending and later call fails with `reason`.
  #end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    Object.assign(this.#worker, { onmessage: null, onmessageerror: null, onerror: null });
    this.#worker.terminate();
    this.#loading.reject(reason);
    this.#looks.splice(0).forEach((look) => look.reject(reason));
    const asks = [...this.#asks.values()];
    this.#asks.clear();
    asks.forEach((ask) => ask.fail(reason));
  }

  #receive(data) {
    let kind, value;
    try {
      [[kind, value]] = Object.entries(JSON.parse(data[0]));
    } catch {
      return this.#end(lost("sent a message that is not an event", "Protocol"));
    }
    if (kind === "Progress") this.#onProgress?.(value);
    else if (kind === "Ready") this.#loading.resolve(value);
    else if (kind === "Proposed") this.#looks.shift()?.resolve(value.boxes);
    else if (kind === "Said") this.#asks.get(value.turn)?.said(value.spans);
    else if (kind === "Done") this.#ask(value.turn)?.done(value.answer);
    else if (kind === "Failed") this.#failed(value, new ChatRexError(value.fault));
  }

  // A failure that names neither turn nor picture is that of loading or of the protocol.
  #failed({ turn, picture }, reason) {
    if (turn !== null) this.#ask(turn)?.fail(reason);
    else if (picture !== null) this.#looks.shift()?.reject(reason);
    else this.#end(reason);
  }

  // Takes the progress of a turn that ends; undefined after an abort.
  #ask(turn) {
    const ask = this.#asks.get(turn);
    this.#asks.delete(turn);
    return ask;
  }
}

// An answer that is being generated, as the user sees it.
class Turn {
  #progress;
  #stop;

  constructor(progress, stop) {
    this.#progress = progress;
    this.#stop = stop;
  }

  get answer() {
    return this.#progress.whole.promise;
  }

  stop() {
    this.#stop();
  }

  // Skips answers so far that were replaced before they were asked for.
  async *[Symbol.asyncIterator]() {
    const progress = this.#progress;
    let seen = null;
    try {
      for (;;) {
        const { outcome, spans } = progress;
        if (outcome?.failed) throw outcome.reason;
        if (spans !== seen) {
          seen = spans;
          yield spans;
        } else if (outcome) {
          return outcome.answer;
        } else {
          await progress.changed.promise;
        }
      }
    } finally {
      this.#stop();
    }
  }
}

// The state of a turn. The model changes it, iterators of the turn read it.
class TurnProgress {
  spans = null;
  // `{ answer }` or `{ failed: true, reason }`.
  outcome = null;
  changed = deferred();
  whole = deferred();

  said(spans) {
    this.spans = spans;
    this.#change();
  }

  done(answer) {
    this.spans = answer.spans;
    this.outcome = { answer };
    this.whole.resolve(answer);
    this.#change();
  }

  fail(reason) {
    if (this.outcome) return;
    this.outcome = { failed: true, reason };
    this.whole.reject(reason);
    this.#change();
  }

  #change() {
    this.changed.resolve();
    this.changed = deferred();
  }
}

function ignore() {}

// A promise and the functions that settle it. A rejection that nobody awaits is no error of the page.
function deferred() {
  let resolve, reject;
  const promise = new Promise((...functions) => ([resolve, reject] = functions));
  promise.catch(ignore);
  return { promise, resolve, reject };
}

// The outcome of `promise`, or the reason of `signal` if that aborts first.
function abortable(promise, signal) {
  if (!signal) return promise;
  const aborted = deferred();
  const abort = () => aborted.reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort);
  return Promise.race([aborted.promise, promise]).finally(() => signal.removeEventListener("abort", abort));
}

function fault(kind, code, place, what, advice) {
  return new ChatRexError({ kind, code, place, what, advice });
}

function lost(what, code = "WorkerLost") {
  return fault("Device", code, "the model's worker", what, "Load the model again");
}

// Throws that the argument `name` cannot be `value`, unless `good`.
function expect(kind, name, value, good) {
  if (!good) throw fault(kind, "InvalidInput", name, `cannot be ${String(value)}`, "");
}

// Whether a value is an integer from 0 to `most`.
function isCount(value, most = 0xffff_ffff) {
  return Number.isInteger(value) && value >= 0 && value <= most;
}

// An address relative to the page.
function absolute(url) {
  try {
    return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  } catch {
    throw fault("Network", "InvalidInput", String(url), "is not an address", "");
  }
}

// The fields of an `Ask` that the user chooses. The worker does not tell which message it could not
// parse, so every value is checked before.
function questionOf(text, { boxes = [], maxTokens, sampling = {} }, card) {
  const check = (name, value, good) => expect("Question", name, value, good);
  check("question", text, typeof text === "string");
  const max_tokens = maxTokens ?? card.default_max_tokens;
  check("maxTokens", max_tokens, isCount(max_tokens));
  for (const [name, value] of Object.entries(sampling)) {
    check(`sampling.${name}`, value, Object.hasOwn(SAMPLING, name) && SAMPLING[name](value));
  }
  const corners = Array.from(boxes, (box) => {
    const four = Array.from(box?.box ?? box ?? []);
    check("boxes", JSON.stringify(box), four.length === 4 && four.every(Number.isFinite));
    return four;
  });
  return { boxes: corners, question: text, max_tokens, sampling };
}

// The boxes that survive non-maximum suppression and have at least `score`, or are the best one of their
// label and have the lower score that the card allows then; at most `limit` of them, as the native program
// chooses them. `boxes` are sorted best first. A `score` of the caller applies to all labels.
function choose(boxes, { score, nms, limit = MAX_BOXES }, card) {
  const least = Math.fround(score ?? card.default_score);
  const first = Math.fround(score ?? card.default_first_of_kind ?? card.default_score);
  const threshold = nms ?? card.default_nms;
  const survivors = [];
  const labels = new Set();
  const kept = [];
  for (const one of boxes) {
    if (kept.length >= limit) break;
    const own = Math.fround(one.score);
    if (!(own >= Math.min(least, first))) continue;
    if (threshold > 0 && survivors.some((earlier) => iou(earlier.box, one.box) > threshold)) continue;
    survivors.push(one);
    const isFirst = one.label !== undefined && !labels.has(one.label);
    labels.add(one.label);
    if (own >= least || isFirst) kept.push(one);
  }
  return kept;
}

// Intersection over union, computed in f32; NaN where both areas are zero.
function iou(...boxes) {
  const f32 = Math.fround;
  const [a, b] = boxes.map((box) => box.map(f32));
  const area = ([x1, y1, x2, y2]) => f32(f32(x2 - x1) * f32(y2 - y1));
  const side = (from, to) => Math.max(f32(Math.min(a[to], b[to]) - Math.max(a[from], b[from])), 0);
  const both = f32(side(0, 2) * side(1, 3));
  return f32(both / f32(f32(area(a) + area(b)) - both));
}

// A picture as `{ width, height, rgb }`; `rgb` is an array of bytes of its own.
async function pixelsOf(source) {
  if (source instanceof Blob) return decode(source);
  if (source instanceof ImageBitmap) return readBitmap(source);
  const { width, height, rgb, data } = source ?? {};
  const bytes = rgb ?? data;
  if (!(bytes instanceof Uint8Array || bytes instanceof Uint8ClampedArray)) {
    const advice = "Pass a Blob, an ImageBitmap, an ImageData or { width, height, rgb }";
    throw fault("Picture", "InvalidInput", "picture", "has no pixels", advice);
  }
  checkSize(width, height);
  const expected = width * height * (rgb ? 3 : 4);
  if (bytes.length !== expected) {
    const what = `has ${bytes.length} bytes for ${width} x ${height} pixels, expected ${expected}`;
    throw fault("Picture", "InvalidInput", "picture", what, "");
  }
  return { width, height, rgb: rgb ? new Uint8Array(rgb) : blendWithWhite(data) };
}

function checkSize(width, height) {
  const pixels = width * height;
  if (isCount(width) && isCount(height) && pixels > 0 && pixels <= MAX_PIXELS) return;
  const what = `has ${width} x ${height} pixels, the limit is ${MAX_PIXELS / 1e6} megapixels`;
  throw fault("Picture", "InvalidInput", "picture", what, "Choose another picture, or scale it down");
}

// Decodes a file. Its EXIF orientation is applied, its color profile is not.
async function decode(blob) {
  const size = await sizeOf(blob);
  if (size) checkSize(...size);
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    premultiplyAlpha: "default",
    colorSpaceConversion: "none",
  }).catch(() => {
    const what = "is not a picture this browser can read";
    throw fault("Picture", "Unsupported", "picture", what, "Pass a JPEG, PNG or WebP file");
  });
  try {
    return await readBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

// Width and height of a file from its header, before it is decoded; null where the browser does not
// tell: in a worker, or if the content security policy blocks images with `blob:` addresses.
async function sizeOf(blob) {
  if (!globalThis.Image) return null;
  const url = URL.createObjectURL(blob);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = url;
    });
    return image.naturalWidth > 0 ? [image.naturalWidth, image.naturalHeight] : null;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}

// Reads a bitmap over white in strips and yields between them, so that the page stays responsive.
async function readBitmap(bitmap) {
  const { width, height } = bitmap;
  checkSize(width, height);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP_PIXELS / width)));
  try {
    const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    const rgb = new Uint8Array(width * height * 3);
    for (let top = 0; top < height; top += rows) {
      const strip = Math.min(rows, height - top);
      context.fillRect(0, 0, width, strip);
      context.drawImage(bitmap, 0, top, width, strip, 0, 0, width, strip);
      const { data } = context.getImageData(0, 0, width, strip);
      for (let from = 0, to = top * width * 3; from < data.length; from += 4, to += 3) {
        rgb[to] = data[from];
        rgb[to + 1] = data[from + 1];
        rgb[to + 2] = data[from + 2];
      }
      await new Promise((resolve) => setTimeout(resolve));
    }
    return { width, height, rgb };
  } catch {
    const what = "the browser found no memory for its pixels";
    throw fault("Picture", "OutOfMemory", "picture", what, "Scale it down and try again");
  }
}

// RGB of RGBA: `value * alpha + 255 * (1 - alpha)`, rounded to nearest.
function blendWithWhite(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    const alpha = rgba[from + 3];
    const white = 255 * (255 - alpha) + 127;
    for (let c = 0; c < 3; c += 1) rgb[to + c] = Math.floor((rgba[from + c] * alpha + white) / 255);
  }
  return rgb;
}
