// The fault table: what goes wrong around the page, one test for each row, named by the row. A test asserts
// the sentence, its code and what is kept. On the CPU, where a row needs no GPU.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { deflateSync } from "node:zlib";
import { inFrontOf } from "./devices.mjs";
import { pngChunk, turnedFiles } from "./exif.mjs";
import { copyOfNano, renamed, sizeOf, startHost } from "./faults.mjs";
import { bring, complains, kept, manager, memory, moves, remove, row, stands, visit } from "./manager.mjs";
import { proposed } from "./native.mjs";
import {
  answered,
  ask,
  asked,
  counted,
  exported,
  handling,
  happened,
  hold,
  imported,
  modelReady,
  open,
  openPicture,
  streaming,
  LONG,
  PLAIN_NAME,
  URL_OF_NANO,
} from "./page.mjs";

const PIECE = 1 << 16;
// Requests that a download has open at the same time.
const AT_ONCE = 3;
const COUNT = "How many objects are there?";
const DESCRIBE =
  "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer.";
const SCENE = await readFile(new URL("../../web/static/samples/scene.png", import.meta.url));
const COFFEE = await readFile(new URL("../../web/static/samples/coffee.jpg", import.meta.url));
const NO_WEBGPU = "delete WorkerNavigator.prototype.gpu; delete self.GPUAdapter;";

let host;
before(async () => {
  host = await startHost();
});
after(() => host?.close());

const nano = () => `${host.url}?model=nano`;
const turns = (page) => page.getByTestId("answer").count();

async function answers(page, question = COUNT) {
  assert.equal((await answered(page, await ask(page, question))).state, "done");
}

// The one message of the page: its sentence and its code.
async function problem(page, says, code) {
  const message = page.getByTestId("error");
  await message.waitFor({ timeout: LONG });
  const words = await message.innerText();
  console.log(words.split("\n")[0]);
  assert.match(words, says);
  assert.equal(await message.getByTestId("error-code").innerText(), `Error code: ${code}`);
  await counted(message, 1);
}

// Opens a file that is refused with one message; the picture and the conversation stay.
async function refused(page, file, says, code) {
  const before = [await turns(page), (await asked(page, "Look")).length];
  await page.getByTestId("file-input").setInputFiles(file);
  await problem(page, says, code);
  assert.deepEqual([await turns(page), (await asked(page, "Look")).length], before);
  await page.getByTestId("dismiss").click();
}

// Does something in the manager.
async function managed(page, act) {
  await manager(page);
  await act();
  await page.getByTestId("manager-close").click();
}

// Brings a model and loads it.
const load = (page, address) =>
  managed(page, async () => {
    await bring(page, address);
    await stands(page, "ready");
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
  });

// Loads the default model in place of the stored one.
async function unload(page) {
  await managed(page, async () => {
    await row(page).getByTestId("unload").click();
    await stands(page, "ready");
  });
  await modelReady(page);
}

const settings = (page) => page.evaluate(() => JSON.parse(localStorage.getItem("chatrex.settings")));

describe("faults of browser and network", () => {
  let browser, page, context;
  before(async () => {
    browser = await visit(host);
    ({ page, context } = browser);
  });
  after(() => browser?.close());

  // Uses another page of the same profile, whose worker begins with the script `first` and which begins
  // with `init`.
  async function elsewhere(use, { first = "", init, address = nano() } = {}) {
    const other = await context.newPage();
    try {
      if (first) await inFrontOf(other, (body) => `${first}\n${body}`);
      if (init) await other.addInitScript(init);
      await other.goto(address);
      await use(other);
    } finally {
      await context.unroute("**/timestamp_query.js");
      await other.close();
      await page.bringToFront();
    }
  }

  const note = (page) => page.getByTestId("device-note").innerText();

  test("null adapter", async () => {
    assert.equal((await answered(page, 0)).state, "done");
    const [ready] = await happened(page, "Ready");
    assert.equal(ready.device, "cpu");
    assert.match(await note(page), /processor \(CPU\), not on a graphics card.*found no graphics card that it can use; hardware acceleration may be off/);
  });

  test("no WebGPU", () =>
    elsewhere(
      async (other) => {
        await modelReady(other);
        const [ready] = await happened(other, "Ready");
        assert.equal(ready.device, "cpu");
        assert.match(await note(other), /processor \(CPU\), not on a graphics card.*does not offer WebGPU/);
        await answers(other);
      },
      { first: NO_WEBGPU, init: () => delete Navigator.prototype.gpu },
    ));

  test("plain http (no secure context)", async () => {
    const plain = (address) => address.replace("localhost", PLAIN_NAME);
    const { address } = host.add("plain", await copyOfNano({ name: "plain" }));
    await elsewhere(
      async (other) => {
        assert.equal(await other.evaluate(() => isSecureContext || Boolean(navigator.gpu)), false);
        assert.equal((await answered(other, 0)).state, "done");
        assert.match(await note(other), /processor \(CPU\).*did not come over https/);
        await managed(other, async () => {
          await bring(other, plain(address));
          await complains(other, /keeps no files for this page.*over HTTPS and outside a private window/, "Unsupported");
        });
        await answers(other);
      },
      { address: plain(nano()) },
    );
  });

  test("private window without OPFS", async () => {
    const { address } = host.add("private", await copyOfNano({ name: "private" }));
    await elsewhere(
      async (other) => {
        assert.equal((await answered(other, 0)).state, "done");
        assert.match(await other.getByTestId("not-kept").innerText(), /offers no storage/);
        await managed(other, async () => {
          await bring(other, address);
          await complains(other, /keeps no files for this page.*outside a private window/, "Unsupported");
        });
        await answers(other);
        await counted(other.getByTestId("error"), 0);
      },
      {
        first: "StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException('refused', 'SecurityError'));",
        init: () => {
          Storage.prototype.getItem = () => null;
          Storage.prototype.setItem = () => {
            throw new DOMException("refused", "QuotaExceededError");
          };
          IDBFactory.prototype.open = () => {
            throw new DOMException("refused", "SecurityError");
          };
        },
      },
    );
  });

  test("download cut", async () => {
    const files = await copyOfNano({ name: "cut" });
    const folder = host.add("cut", files, { cutEvery: 700_000, rate: 2_000_000 });
    await managed(page, async () => {
      await bring(page, folder.address);
      await moves(page, folder);
      folder.refuse = true;
      const words = page.getByTestId("model-words");
      await words.getByText(/^Waiting for the network\. [\d.]+ MB of [\d.]+ MB is safe\.$/).waitFor({ timeout: LONG });
      folder.refuse = false;
      await stands(page, "ready", LONG);
      const limit = sizeOf(files) * 1.02 + 2 * AT_ONCE * PIECE;
      assert.ok(folder.served <= limit, `${folder.served} bytes served, at most ${limit} expected`);
      await remove(page);
    });
  });

  test("server without ranges", async () => {
    const files = await copyOfNano({ name: "whole" });
    const folder = host.add("whole", files, { ranges: false });
    await managed(page, async () => {
      await bring(page, folder.address);
      await stands(page, "ready");
      assert.ok(folder.served <= sizeOf(files) * 1.02, `${folder.served} bytes for ${sizeOf(files)}`);
      await remove(page);
    });
  });

  test("ETag changed", async () => {
    const folder = host.add("changing", await copyOfNano({ name: "changing" }), { rate: 400_000 });
    await managed(page, async () => {
      await bring(page, folder.address);
      await moves(page, folder);
      folder.version = "2";
      await complains(page, /safetensors: was replaced by another file at its source/, "Corrupt");
      await stands(page, "partial");
      assert.match(await page.getByTestId("model-words").innerText(), /is here$/);
      await remove(page);
    });
  });

  test("shard corrupt", async () => {
    const files = await copyOfNano({ name: "corrupt" });
    const whole = files.get("decoder.safetensors");
    const spoilt = Buffer.from(whole);
    spoilt[200_000] ^= 1;
    files.set("decoder.safetensors", spoilt);
    const folder = host.add("corrupt", files, { corruptOnce: ["upn.safetensors", 100_000] });
    await managed(page, async () => {
      await bring(page, folder.address);
      // What the connection spoils comes again; what is wrong at its source is named.
      await complains(page, /decoder\.safetensors, bytes 196608 to 262144: is damaged at .*: its SHA-256 was wrong 3 times/, "Corrupt");
      assert.equal(folder.corruptOnce, undefined);
      await stands(page, "partial");
      const before = folder.served;
      files.set("decoder.safetensors", whole);
      await row(page).getByTestId("resume").click();
      await stands(page, "ready");
      assert.ok(folder.served - before <= whole.length, "the other shards do not come again");
      await remove(page);
    });
  });

  test("gzip'd weights", async () => {
    const folder = host.add("gzip", await copyOfNano({ name: "gzip" }), { gzip: true });
    await load(page, folder.address);
    await answers(page);
    await unload(page);
    await managed(page, () => remove(page));
  });

  test("HTML with 200", async () => {
    const folder = host.add("html", await copyOfNano({ name: "html" }), { html: true });
    await managed(page, async () => {
      await bring(page, folder.address);
      await complains(page, /tokenizer\.json: is a web page where a file of a model should be/, "Corrupt");
      assert.equal(await kept(page), 0);
      await page.getByTestId("model-address").fill("");
    });
  });

  test("quota refused", async () => {
    const folder = host.add("large", await copyOfNano({ name: "large" }));
    const session = await context.newCDPSession(page);
    const { origin } = new URL(host.url);
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 3_000_000 });
    await managed(page, async () => {
      await bring(page, folder.address);
      await complains(page, /This needs [\d.]+ MB and the browser refused the space\. Delete another model/, "Quota");
      assert.equal(await kept(page), 0);
      await counted(page.getByTestId("model"), 0);
      await session.send("Storage.overrideQuotaForOrigin", { origin });
      await page.getByTestId("model-address").fill("");
    });
  });

  test("model emits broken tags", async () => {
    // Every closing tag is that of the other kind.
    const swap = { "</ground>": "</objects>", "</objects>": "</ground>" };
    const folder = host.add("broken", renamed(await copyOfNano({ name: "broken" }), swap));
    await load(page, folder.address);
    await page.getByTestId("sampling-open").click();
    await page.getByTestId("grammar").uncheck();
    await page.keyboard.press("Escape");
    await page.evaluate(() => {
      self.shown = new Set();
      const list = document.querySelector(".transcript");
      const read = () => self.shown.add(list.innerText);
      new MutationObserver(read).observe(list, { childList: true, characterData: true, subtree: true });
    });
    const { state, words } = await answered(page, await ask(page, DESCRIBE));
    assert.equal(state, "done");
    const { text } = (await happened(page, "Done")).at(-1).answer;
    assert.match(text, /<ground>[^<]+<\/objects>/, "the model wrote broken tags");
    for (const word of text.replace(/<[^>]*>/g, " ").match(/\p{L}+/gu)) assert.ok(words.includes(word), `${word} is shown`);
    for (const shown of await page.evaluate(() => [...self.shown])) assert.doesNotMatch(shown, /<\/?(g|o)|obj\d/);
    await page.getByTestId("sampling-open").click();
    await page.getByTestId("grammar").check();
    await page.keyboard.press("Escape");
    await unload(page);
    await managed(page, () => remove(page));
  });

  let stored;
  test("two tabs", async () => {
    const folder = host.add("shared", await copyOfNano({ name: "shared" }));
    await load(page, folder.address);
    stored = (await settings(page)).model;
    const count = await turns(page);
    await elsewhere(
      async (other) => {
        await problem(other, /^This model: is in use in another tab\. Unload it or close that tab, then try again\./, "InUse");
        assert.equal(await turns(other), count);
        await managed(other, async () => {
          await stands(other, "elsewhere");
          assert.match(await other.getByTestId("model-words").innerText(), /in use in another tab\./);
        });
        await page.bringToFront();
        await answers(page);
        await unload(page);
        await other.bringToFront();
        await other.getByTestId("restart").click();
        await modelReady(other);
        assert.equal((await happened(other, "Ready")).at(-1).name, "shared");
        await counted(other.getByTestId("error"), 0);
      },
      { address: host.url },
    );
  });

  test("cache evicted", async () => {
    const count = await turns(page);
    await page.evaluate(async (model) => {
      const settings = JSON.parse(localStorage.getItem("chatrex.settings"));
      localStorage.setItem("chatrex.settings", JSON.stringify({ ...settings, model }));
      const root = await navigator.storage.getDirectory();
      // The files of the tab that was closed stay locked for a moment.
      for (let attempt = 0; ; attempt += 1) {
        try {
          return await root.removeEntry("models", { recursive: true });
        } catch (error) {
          if (attempt === 50) throw error;
          await new Promise((done) => setTimeout(done, 100));
        }
      }
    }, stored);
    await elsewhere(
      async (other) => {
        await problem(other, /^This model: is not kept in this browser any more\. Download or import it again\./, "NotFound");
        assert.equal(await turns(other), count);
        await other.getByTestId("smaller").click();
        await modelReady(other);
        await counted(other.getByTestId("error"), 0);
        await answers(other);
      },
      { address: host.url },
    );
  });

  test("reload mid-answer", async () => {
    const before = await turns(page);
    await hold(page, 2);
    const turn = await ask(page, DESCRIBE);
    const words = await streaming(page, turn);
    assert.notEqual(words, "");
    await page.reload();
    const { state, words: after } = await answered(page, turn);
    assert.equal(state, "stopped");
    assert.ok(after.includes(words), `${after} has ${words}`);
    await counted(page.getByTestId("answer"), before + 1);
    await modelReady(page);
    assert.deepEqual(await asked(page, "Ask"), []);
    await answers(page);
  });

  test("back/forward and long background", async () => {
    const before = await turns(page);
    await page.goto(`${host.url}start.js`);
    await page.goBack();
    await modelReady(page);
    await counted(page.getByTestId("answer"), before);
    await answers(page);
    const session = await context.newCDPSession(page);
    const release = await hold(page, 1);
    const turn = await ask(page, DESCRIBE);
    await streaming(page, turn);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((done) => setTimeout(done, 2000));
    await session.send("Page.setWebLifecycleState", { state: "active" });
    await release();
    assert.equal((await answered(page, turn)).state, "done");
    await answers(page);
  });

  test("foreign request under CSP", async () => {
    let requests = 0;
    const server = createServer((_, response) => {
      requests += 1;
      response.setHeader("access-control-allow-origin", "*");
      response.end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = `http://127.0.0.1:${server.address().port}/`;
    const before = browser.seen.violations.length;
    const blocked = await page.evaluate(async (address) => {
      const element = (name, more) =>
        new Promise((done) => {
          const one = Object.assign(document.createElement(name), more);
          one.onload = () => done("loaded");
          one.onerror = () => done("blocked");
          document.head.append(one);
        });
      const request = (make) => Promise.resolve().then(make).then(() => "loaded", () => "blocked");
      return {
        fetch: await request(() => fetch(address)),
        script: await element("script", { src: address }),
        style: await element("link", { rel: "stylesheet", href: address }),
        image: await element("img", { src: address }),
        worker: await request(() => new Promise((done, fail) => {
          const worker = new Worker(URL.createObjectURL(new Blob([`fetch("${address}")`])));
          worker.onmessage = done;
          worker.onerror = fail;
        })),
        beacon: navigator.sendBeacon(address, "a"),
        socket: await request(() => new Promise((done, fail) => {
          const socket = new WebSocket(address.replace("http", "ws"));
          socket.onopen = done;
          socket.onerror = fail;
        })),
      };
    }, address);
    const [worker] = page.workers();
    blocked.engine = await worker.evaluate((address) => fetch(address).then(() => "loaded", () => "blocked"), address);
    server.close();
    delete blocked.beacon;
    assert.deepEqual(new Set(Object.values(blocked)), new Set(["blocked"]), JSON.stringify(blocked));
    assert.equal(requests, 0);
    assert.ok(browser.seen.violations.length > before, "the browser reports them");
    await answers(page);
  });

  test("broken, huge, 1x1 and wrong-extension pictures", async () => {
    await page.goto(nano());
    await modelReady(page);
    const file = (name, buffer) => ({ name, mimeType: name.endsWith("png") ? "image/png" : "image/jpeg", buffer });
    const unreadable = /^That file cannot be opened: this browser cannot read it as a picture\. Take a JPEG, PNG or WebP file; your current picture is unchanged\./;
    await refused(page, file("words.jpg", Buffer.from("this is no picture")), unreadable, "Unsupported");
    await refused(page, file("empty.png", Buffer.alloc(0)), unreadable, "Unsupported");
    await refused(page, file("cut.png", SCENE.subarray(0, 200)), unreadable, "Unsupported");
    await refused(page, file("cut.jpg", COFFEE.subarray(0, COFFEE.length >> 1)), /^That picture cannot be opened: it was cut short: its end is missing\./, "Corrupt");
    await refused(page, file("huge.png", blank(9_000, 8_000)), /^That picture cannot be opened: it has 72 million pixels; 64 million is the most\./, "InvalidInput");
    const sizes = [
      ["one.png", blank(1, 1), 1, 1],
      ["large.png", blank(8_000, 6_250), 8_000, 6_250],
      ["really-a.png.jpg", SCENE],
      ["really-a-jpeg.png", COFFEE],
    ];
    for (const [name, buffer, width, height] of sizes) {
      await openPicture(page, file(name, buffer));
      const { pixels } = (await asked(page, "Look")).at(-1);
      if (width) assert.deepEqual(pixels, { width, height }, name);
      await answers(page);
      await counted(page.getByTestId("error"), 0, name);
    }
    // nano cannot look at it; the picture is there, for boxes of the user.
    await page.getByTestId("file-input").setInputFiles(file("thin.png", blank(20_000, 10)));
    await problem(page, /fewer than the 48 queries of the detector\. Use a larger picture\./, "InvalidInput");
    assert.equal(await page.locator("#picture img").evaluate((image) => image.naturalWidth), 20_000);
    await openPicture(page, file("again.png", SCENE));
    await counted(page.getByTestId("error"), 0);
  });

  test("EXIF in JPEG, PNG and WebP: page and native program turn the same files", async () => {
    const size = [SCENE.readUInt32BE(16), SCENE.readUInt32BE(20)];
    for (const [ending, buffer] of Object.entries(await turnedFiles(page, SCENE))) {
      const { image, boxes } = await proposed(buffer);
      await openPicture(page, { name: `turned.${ending}`, mimeType: `image/${ending.replace("jpg", "jpeg")}`, buffer });
      const { pixels } = (await asked(page, "Look")).at(-1);
      assert.deepEqual([pixels.width, pixels.height], size, ending);
      assert.deepEqual([image.width, image.height], size, ending);
      const found = (await happened(page, "Proposed")).at(-1).boxes;
      assert.ok(boxes.length > 0);
      for (const { box } of boxes) {
        const apart = Math.min(...found.map((other) => Math.max(...box.map((value, i) => Math.abs(value - other.box[i])))));
        assert.ok(apart < 2, `${ending}: the box ${box} is ${apart} pixels from the nearest of the page`);
      }
    }
  });

  test("20 pictures in a row (wasm memory flat)", async () => {
    const session = await context.newCDPSession(page);
    const heap = async () => {
      await session.send("HeapProfiler.collectGarbage");
      return (await session.send("Runtime.getHeapUsage")).usedSize / 1e6;
    };
    const sizes = [];
    for (let number = 0; number < 20; number += 1) {
      await openPicture(page, { name: `${number}.png`, mimeType: "image/png", buffer: SCENE });
      if (number === 4 || number === 19) sizes.push([await memory(page), await heap()]);
    }
    const [[worker, script], [lastWorker, lastScript]] = sizes;
    console.log(`worker ${worker} and ${lastWorker} MB, scripts ${script.toFixed(1)} and ${lastScript.toFixed(1)} MB`);
    assert.equal(lastWorker, worker, "the worker's memory does not grow");
    assert.ok(lastScript - script < 3, "that of the page's scripts neither");
    await answers(page);
  });

  test("200-turn conversation", async () => {
    await openPicture(page, { name: "long.png", mimeType: "image/png", buffer: SCENE });
    await answers(page, DESCRIBE);
    const short = await handling(page);
    const saved = await exported(page);
    const [turn] = saved.turns;
    saved.turns = Array.from({ length: 199 }, (_, number) => ({ ...turn, shown: `${turn.shown} (${number})` }));
    await imported(page, saved);
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="answer"]').length === 200, null, { timeout: LONG });
    const long = await handling(page);
    for (const kind of ["typing", "sliding", "pointing"]) {
      console.log(`${kind}: ${short[kind].toFixed(0)} ms with one turn, ${long[kind].toFixed(0)} ms with 200`);
      assert.ok(long[kind] < 250, `${kind} takes ${long[kind]} ms`);
    }
    assert.equal((await answered(page, await ask(page, DESCRIBE))).state, "done");
    await counted(page.getByTestId("answer"), 201);
    const below = await page.locator(".transcript").evaluate((list) => list.scrollHeight - list.scrollTop - list.clientHeight);
    assert.ok(below < 2, "the new answer is in sight");
    await page.reload();
    assert.equal((await answered(page, 200)).state, "done");
    await counted(page.getByTestId("answer"), 201);
  });
});

test("update mid-answer", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.goto(URL_OF_NANO);
    await answered(page, 0);
    await page.waitForFunction(() => navigator.serviceWorker.controller, null, { timeout: LONG });
    const release = await hold(page, 1);
    const turn = await ask(page, DESCRIBE);
    const words = await streaming(page, turn);
    // Another script of the same scope takes over, as a new version does.
    await page.evaluate(() => navigator.serviceWorker.register("./service_worker.js?next"));
    await page.waitForFunction(() => navigator.serviceWorker.controller.scriptURL.endsWith("?next"), null, { timeout: LONG });
    await page.waitForTimeout(500);
    await counted(page.getByTestId("new-version"), 0, "not in the middle of an answer");
    assert.equal(await streaming(page, turn), words, "the answer is not touched");
    await release();
    const whole = await answered(page, turn);
    assert.equal(whole.state, "done");
    await page.getByTestId("new-version").getByRole("button").click();
    await page.waitForFunction(() => !document.querySelector('[data-testid="new-version"]'));
    assert.deepEqual(await answered(page, turn), whole);
    assert.deepEqual(await asked(page, "Ask"), []);
  } finally {
    await browser.close();
  }
});

// Prepended to `timestamp_query.js`: the GPU has no memory left after two megabytes.
const NO_MEMORY = `
{
  const create = GPUDevice.prototype.createBuffer;
  let bytes = 0;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    bytes += descriptor.size;
    const error = () => new GPUOutOfMemoryError("Not enough memory left.");
    const tell = () => this.dispatchEvent(new GPUUncapturedErrorEvent("uncapturederror", { error: error() }));
    if (bytes > 2e6) setTimeout(tell);
    return create.call(this, descriptor);
  };
}
`;

// Prepended to `timestamp_query.js`: counts the bytes of buffers, and lets the GPU's results wait from the first
// piece of an answer on while `waits` is set.
const TALLY = `
{
  self.tally = 0;
  const { createBuffer } = GPUDevice.prototype;
  const { destroy, mapAsync } = GPUBuffer.prototype;
  const alive = new WeakSet();
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    alive.add(buffer);
    self.tally += buffer.size;
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    if (alive.delete(this)) self.tally -= this.size;
    destroy.call(this);
  };
  const post = self.postMessage;
  let gate = null;
  self.postMessage = (message) => {
    post.call(self, message);
    if (self.waits && message[0].startsWith('{"Said"')) gate ??= new Promise((open) => (self.go = open));
  };
  GPUBuffer.prototype.mapAsync = async function (...words) {
    await gate;
    return mapAsync.apply(this, words);
  };
}
`;

describe("faults of the GPU", () => {
  let browser, page, context;
  before(async () => {
    browser = await visit(host, { webgpu: true });
    ({ page, context } = browser);
  });
  after(() => browser?.close());

  // Every worker begins with a script from now on.
  async function begins(first) {
    await context.unroute("**/timestamp_query.js");
    if (first) await inFrontOf(page, (body) => `${first}\n${body}`);
  }

  async function crash() {
    const session = await (context.browser() ?? context).newBrowserCDPSession();
    await session.send("Browser.crashGpuProcess");
  }

  test("device lost mid-load", async () => {
    // All bytes are here, and the pipelines of the self-test are compiled.
    await page.getByTestId("model-state").getByText(/([\d.]+) of \1 [kMG]B/).waitFor({ timeout: LONG });
    await begins(NO_WEBGPU);
    await crash();
    await problem(page, /^The GPU was reset \(driver, sleep or memory\)\. Your picture and chat are safe\./, "DeviceLost");
    assert.match(await page.getByTestId("answer").first().innerText(), /Waits until the model is started again/);
    await page.getByTestId("restart").click();
    assert.equal((await answered(page, 0)).state, "done");
    await counted(page.getByTestId("error"), 0);
  });

  test("GPU out of memory", async () => {
    const folder = host.add("big", await copyOfNano({ name: "big" }));
    await load(page, folder.address);
    await page.waitForTimeout(600);
    await begins(NO_MEMORY);
    await page.goto(host.url);
    await problem(page, /^Not enough GPU memory for big\. Your picture and chat are safe\./, "OutOfMemory");
    await counted(page.getByTestId("answer"), 1);
    assert.equal((await answered(page, 0)).state, "done");
    await begins(NO_WEBGPU);
    await page.getByTestId("smaller").click();
    await modelReady(page);
    await counted(page.getByTestId("error"), 0);
    await answers(page);
  });

  test("device lost mid-answer", async () => {
    await begins(TALLY);
    await page.goto(`${host.url}?model=nano`);
    await modelReady(page);
    assert.equal((await happened(page, "Ready")).at(-1).device, "wgpu");
    const before = await turns(page);
    await page.workers()[0].evaluate(() => (self.waits = true));
    const turn = await ask(page, DESCRIBE);
    const words = await streaming(page, turn);
    await crash();
    await page.workers()[0].evaluate(() => self.go());
    const recovery = page.getByTestId("recovery");
    await recovery.getByText(/^The GPU was reset \(driver, sleep or memory\)\. Restoring…$/).waitFor({ timeout: LONG });
    await page.getByTestId("ask-again").waitFor({ timeout: LONG });
    assert.match(await recovery.innerText(), /^Restored\./);
    await counted(page.getByTestId("error"), 0);
    const lost = await answered(page, turn);
    assert.equal(lost.state, "failed");
    assert.ok(lost.words.includes(words), `${lost.words} has ${words}`);
    await counted(page.getByTestId("answer"), before + 1);
    await page.getByTestId("ask-again").click();
    await page.waitForFunction((turn) => document.querySelectorAll('[data-testid="answer"]')[turn].dataset.state === "done", turn, { timeout: LONG });
    await counted(recovery, 0);
    assert.equal((await happened(page, "Ready")).at(-1).device, "wgpu");
  });

  test("20 pictures in a row (GPU tally flat)", async () => {
    const tally = () => page.workers()[0].evaluate(() => self.tally);
    const sizes = [];
    for (let number = 0; number < 20; number += 1) {
      await openPicture(page, { name: `${number}.jpg`, mimeType: "image/jpeg", buffer: COFFEE });
      sizes.push(await tally());
    }
    console.log(`GPU buffers: ${sizes.map((bytes) => (bytes / 1e6).toFixed(0)).join(", ")} MB`);
    assert.ok(sizes[0] > 1e6, "they are counted");
    assert.ok(sizes.at(-1) <= sizes[4], `${sizes.at(-1)} bytes after 20 pictures, ${sizes[4]} after five`);
    await answers(page);
  });
});

// A black picture.
function blank(width, height) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 1;
  const rows = Buffer.alloc((1 + Math.ceil(width / 8)) * height);
  const start = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([start, pngChunk("IHDR", header), pngChunk("IDAT", deflateSync(rows)), pngChunk("IEND", Buffer.alloc(0))]);
}
