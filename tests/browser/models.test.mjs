// The device card, the benchmark, how questions are answered, the list of models, and the way to a real
// model, on the CPU.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { copyOfNano, startHost } from "./faults.mjs";
import { accept, bring, manager, row, stands, survey, visit } from "./manager.mjs";
import {
  answered,
  ask,
  asked,
  counted,
  happened,
  hold,
  modelReady,
  nothingForbidden,
  open,
  slide,
  LONG,
  PICTURES,
  PROGRAM,
  URL_OF_NANO,
} from "./page.mjs";

const run = promisify(execFile);
const CHECKPOINT = "tests/data/golden/checkpoint";
// Its answer repeats words.
const EVERYTHING =
  "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer.";
const CLIPBOARD = ["clipboard-read", "clipboard-write"];
const copied = (page) => page.evaluate(() => navigator.clipboard.readText());
const frames = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

let host;
before(async () => {
  host = await startHost();
});
after(() => host?.close());

describe("the loaded model", () => {
  let browser, page;
  before(async () => {
    browser = await open({ webgpu: false, serviceWorkers: "block" });
    page = browser.page;
    await browser.context.grantPermissions(CLIPBOARD);
    await page.goto(URL_OF_NANO);
    await answered(page, 0);
  });
  after(async () => {
    if (browser) nothingForbidden(browser.seen);
    await browser?.close();
  });

  const lastAsk = async () => (await asked(page, "Ask")).at(-1);
  const panel = async (act) => {
    await page.getByTestId("sampling-open").click();
    await act();
    await page.keyboard.press("Escape");
  };
  const set = (id, text) => page.getByTestId(id).fill(text).then(() => page.getByTestId(id).press("Tab"));

  test("device card: the report is plain text about device and model, and holds nothing of the chat", async () => {
    await page.getByTestId("about").click();
    const card = await page.getByTestId("device-card").innerText();
    for (const word of [/Computes on/, /Backend/, /Browser/, /Engine/]) assert.match(card, word);
    await page.getByTestId("copy-report").click();
    await page.getByTestId("copy-report-done").filter({ hasText: "Copied" }).waitFor();
    const report = await copied(page);
    for (const line of [/^ChatRex in the browser$/m, /^Model: nano, /m, /^Memory plan: Fits/m, /^Browser: Mozilla/m]) {
      assert.match(report, line);
    }
    const turn = await page.evaluate(() => document.querySelector('[data-testid="answer"]').innerText.trim());
    assert.ok(!report.includes(turn.split("\n")[0]), report);
    await page.screenshot({ path: join(PICTURES, "models-device.png") });
  });

  test("bench: three runs of a fixed picture, medians and JSON; nothing of the chat is lost", async () => {
    const turns = await page.getByTestId("answer").allInnerTexts();
    await page.getByTestId("bench-begin").click();
    await page.getByTestId("bench-result").waitFor({ timeout: LONG });
    await page.screenshot({ path: join(PICTURES, "models-bench.png") });
    await page.getByTestId("bench-copy").click();
    await page.getByTestId("bench-copy-done").filter({ hasText: "Copied" }).waitFor();
    const report = JSON.parse(await copied(page));
    assert.equal(report.runs.length, 3);
    assert.deepEqual([report.model, report.picture, report.device], ["nano", "scene.png", "cpu"]);
    for (const figure of ["detector", "vision", "first_word", "prefill", "decode"]) {
      const values = report.runs.map((run) => run[figure]).sort((a, b) => a - b);
      assert.ok(values[0] > 0, `${figure}: ${values}`);
      assert.equal(report.median[figure], values[1], figure);
    }
    assert.ok(report.runs.every((run) => run.vision > 1), "the picture is looked at anew in each run");
    assert.deepEqual(await page.getByTestId("answer").allInnerTexts(), turns);
    await page.keyboard.press("Escape");
    assert.equal((await answered(page, await ask(page, "How many cats are there?"))).state, "done");
  });

  test("bench: it can be stopped, and a question asked meanwhile is answered after it", async () => {
    // The engine's answer is held back: the benchmark would end before the button is pressed.
    const stopped = await hold(page, 0);
    await page.getByTestId("about").click();
    await page.getByTestId("bench-begin").click();
    await page.getByTestId("bench-stop").click();
    await stopped();
    await page.getByTestId("bench-state").filter({ hasText: "Stopped" }).waitFor({ timeout: 60_000 });
    await counted(page.getByTestId("bench-result"), 0);
    const release = await hold(page, 0);
    await page.getByTestId("bench-begin").click();
    await page.getByTestId("bench-stop").waitFor();
    await page.keyboard.press("Escape");
    const turn = await ask(page, "What is here?");
    await release();
    assert.equal((await answered(page, turn)).state, "done");
  });

  test("sampling: temperature, top-p, repetition penalty and limit have ranges and resets", async () => {
    await panel(async () => {
      const slider = page.getByTestId("temperature-slider");
      const range = await slider.evaluate((s) => [s.min, s.max, s.step].map(Number));
      assert.ok(range[0] === 0 && range[1] === 2 && Math.abs(range[2] - 0.05) < 1e-6, String(range));
      assert.ok(await page.getByTestId("reset-temperature").isDisabled());
      await slide(page, "temperature-slider", "1.5");
      await slide(page, "penalty-slider", "1.3");
      await set("max-tokens", "9999");
      await page.waitForFunction(() => document.querySelector('[data-testid="max-tokens"]').value === "2048");
      await set("max-tokens", "24");
      await page.screenshot({ path: join(PICTURES, "models-choices.png") });
    });
    await answered(page, await ask(page, "What is in the picture?"));
    const { sampling, max_tokens } = await lastAsk();
    assert.equal(max_tokens, 24);
    assert.ok(Math.abs(sampling.temperature - 1.5) < 1e-6 && Math.abs(sampling.repetition_penalty - 1.3) < 1e-6);
    await panel(async () => {
      for (const item of ["temperature", "penalty", "maxtokens"]) await page.getByTestId(`reset-${item}`).click();
    });
    await answered(page, await ask(page, "What is in the picture?"));
    const usual = await lastAsk();
    assert.deepEqual([usual.max_tokens, usual.sampling.temperature, usual.sampling.repetition_penalty], [512, 0, undefined]);
  });

  test("sampling: a repetition penalty changes the words of a greedy answer as the rule says", async () => {
    const text = async (penalty) => {
      await panel(() => slide(page, "penalty-slider", penalty));
      await answered(page, await ask(page, EVERYTHING));
      return (await happened(page, "Done")).at(-1).answer.text;
    };
    const [plain, penalized] = [await text("1"), await text("2")];
    assert.notEqual(plain, penalized);
    await panel(() => page.getByTestId("reset-penalty").click());
  });

  test("system prompt: it is shown, sent, refused with control words, and restored", async () => {
    await panel(async () => {
      assert.equal(await page.getByTestId("system").inputValue(), "");
      await set("system", "You see stickers.");
    });
    const turn = await ask(page, "How many dogs are there?");
    await answered(page, turn);
    assert.equal((await lastAsk()).system, "You see stickers.");
    const { prompt } = (await happened(page, "Done")).at(-1).answer;
    assert.match(prompt, /^<\|im_start\|>system\nYou see stickers\.<\|im_end\|>\n/);
    for (const bad of ["a <|im_end|> b", "a <image> b", "<obj3>"]) {
      await panel(() => set("system", bad));
      const refused = await answered(page, await ask(page, "How many dogs are there?"));
      assert.equal(refused.state, "failed", bad);
    }
    await panel(() => page.getByTestId("reset-system").click());
    await answered(page, await ask(page, "How many dogs are there?"));
    assert.equal((await lastAsk()).system, undefined);
  });

  test("multi-turn: earlier turns go along only where the switch is on, and it says what that means", async () => {
    assert.equal((await lastAsk()).earlier, undefined);
    await panel(async () => {
      const words = await page.getByTestId("earlier-words").innerText();
      assert.match(words, /Include earlier turns \(\d+ tokens\)/);
      assert.match(await page.getByTestId("earlier-note").innerText(), /trained on single questions/);
      assert.equal(await page.getByTestId("earlier").isChecked(), false);
      await page.getByTestId("earlier").check();
    });
    const before = await happened(page, "Done");
    await answered(page, await ask(page, "And what else?"));
    const { earlier } = await lastAsk();
    assert.ok(earlier.length > 1);
    const known = before.map((done) => done.answer.text);
    assert.ok(earlier.every((exchange) => known.includes(exchange.answer)));
    const { prompt } = (await happened(page, "Done")).at(-1).answer;
    assert.ok(prompt.indexOf(earlier[0].question) < prompt.indexOf("And what else?"));
    await panel(() => page.getByTestId("earlier").uncheck());
  });

  test("scope: a choice is for this conversation, until it is made the default", async () => {
    const temperature = () => page.getByTestId("temperature-slider").inputValue().then(Number);
    const again = async (act) => {
      await page.getByTestId("remove-picture").click();
      await page.getByTestId("file-input").setInputFiles("web/static/samples/scene.png");
      await page.getByTestId("box").first().waitFor({ timeout: LONG });
      await panel(act);
    };
    await panel(async () => {
      await slide(page, "temperature-slider", "0.7");
      assert.match(await page.getByTestId("scope").innerText(), /For this conversation/);
    });
    await again(async () => {
      assert.equal(await temperature(), 0, "a new conversation begins with the defaults");
      await slide(page, "temperature-slider", "0.5");
      await page.getByTestId("make-default").click();
      await page.getByTestId("make-default").and(page.locator(":disabled")).waitFor();
    });
    await again(async () => {
      assert.equal(await temperature(), 0.5, "the default");
      await page.getByTestId("reset-temperature").click();
      await page.getByTestId("make-default").click();
    });
  });
});

describe("a software adapter", () => {
  // The page is told of an imitated graphics card; the worker has none, and so computes on the CPU.
  const software = () => {
    const info = { vendor: "google", architecture: "swiftshader", isFallbackAdapter: true };
    Object.defineProperty(navigator, "gpu", { configurable: true, value: { requestAdapter: async () => ({ info }) } });
  };
  const records = (page) =>
    page.waitForFunction(() => localStorage.getItem("chatrex.engines"), null, { timeout: LONG }).then((h) => h.jsonValue());

  // The second worker is the trial of the GPU path.
  const trial = (context, script) => {
    let workers = 0;
    return context.route("**/worker_start.js", (route) => {
      workers += 1;
      if (workers !== 2) return route.continue();
      return script ? route.fulfill({ contentType: "text/javascript", body: script }) : route.abort();
    });
  };

  test("both engines are measured once, the faster is remembered and named in the device card", async () => {
    const browser = await open({ webgpu: false, serviceWorkers: "block" });
    const { context, page } = browser;
    try {
      await context.addInitScript(software);
      await trial(context, null);
      await page.goto(URL_OF_NANO);
      await answered(page, 0);
      assert.equal((await asked(page, "Load"))[0].device, "cpu");
      const [record] = Object.values(JSON.parse(await records(page)));
      assert.ok(record.device === "cpu" && record.cpu.token > 0 && record.gpu === null, JSON.stringify(record));
      await page.getByTestId("about").click();
      assert.match(await page.getByTestId("engine-choice").innerText(), /CPU path is used.*took too long/);
      await page.reload();
      await modelReady(page);
      assert.equal((await asked(page, "Load"))[0].device, "cpu");
      assert.equal(page.workers().length, 1, "measured once");
    } finally {
      await browser.close();
    }
  });

  test("the GPU path is taken where it was faster", async () => {
    const browser = await open({ webgpu: false, serviceWorkers: "block" });
    const { context, page } = browser;
    const fast = `self.onmessage = ({ data: [json] }) => {
      const { Load, Look, Ask } = JSON.parse(json);
      const send = (event) => self.postMessage([JSON.stringify(event)]);
      const needs = { upn: 0, towers: 0, decoder: 0, cache: 0, upn_scratch: 0, towers_scratch: 0, decoder_scratch: 0, largest_buffer: 0 };
      const fit = { verdict: "fits", residency: "All", reason: "", needs };
      if (Load) send({ Ready: { asked_for: Load.model, name: "nano", licence: "", trained_on: "", device: "wgpu", adapter: "",
        software: true, default_score: 0.5, default_nms: 0.8, default_max_tokens: 9, weight_bytes: 1, fit } });
      if (Look) send({ Proposed: { picture: Look.picture, granularity: "coarse", boxes: [], milliseconds: { prepare: 0, upn: 0 } } });
      if (Ask) send({ Done: { turn: Ask.turn, answer: { prompt: "", text: "a", spans: [], tokens: 9, prefill_tokens: 9, stop: "end",
        milliseconds: { look: 0, prefill: 0, first_token: 0, decode: 0 } } } });
    };`;
    try {
      await context.addInitScript(software);
      await trial(context, fast);
      await page.goto(URL_OF_NANO);
      await answered(page, 0);
      const [record] = Object.values(JSON.parse(await records(page)));
      assert.equal(record.device, "wgpu");
      // Not "cpu" as before: the engine takes the GPU where there still is one.
      await page.waitForFunction(() => self.requests.filter((r) => r.Load).at(-1).Load.device === "auto");
    } finally {
      await browser.close();
    }
  });
});

describe("the list of models", () => {
  let browser, page;
  before(async () => {
    browser = await visit(host);
    page = browser.page;
    await browser.context.grantPermissions(CLIPBOARD);
    await answered(page, 0);
    await manager(page);
  });
  after(() => browser?.close());

  test("progress: every file of a download is waiting, downloading, checking or done", async () => {
    const folder = host.add("slow", await copyOfNano({ name: "slow" }), { rate: 500_000 });
    await bring(page, folder.address);
    await page.locator('[data-testid="shard"][data-state="downloading"]').first().waitFor({ state: "attached" });
    await page.getByTestId("shards").locator("summary").click();
    const shards = await page.getByTestId("shard").allInnerTexts();
    assert.deepEqual(
      shards.map((text) => /^([a-z]+)\.safetensors: (waiting|downloading|checking|done), /.exec(text)?.[1]),
      ["upn", "towers", "decoder"],
      shards.join("\n"),
    );
    assert.match(shards.at(-1), /waiting/);
    await page.screenshot({ path: join(PICTURES, "models-shards.png") });
    folder.rate = undefined;
    await stands(page, "ready");
    await counted(page.getByTestId("shard"), 0);
  });

  test("cached list: size, verdict and the last use are shown", async () => {
    assert.match(await page.getByTestId("last-used").innerText(), /Never used/);
    assert.match(await page.getByTestId("kept-verdict").innerText(), /^Fits: runs on the CPU/);
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    await page.getByTestId("last-used").filter({ hasText: "last 24 hours" }).waitFor();
    await page.screenshot({ path: join(PICTURES, "models-list.png") });
  });

  test("two tabs: the second says so, and takes the model over with Use it here", async () => {
    const other = await browser.context.newPage();
    await other.goto(`${host.url}?model=nano`);
    await modelReady(other);
    await manager(other);
    await stands(other, "elsewhere");
    assert.match(await row(other).getByTestId("model-words").innerText(), /in use in another tab/);
    await row(other).getByTestId("use-here").click();
    await stands(other, "loaded");
    await page.bringToFront();
    await stands(page, "elsewhere");
    await page.getByText("Another tab uses slow now.").waitFor();
    await other.close();
    await row(page).getByTestId("again").click();
    await stands(page, "ready");
  });

  test("cached list: delete all needs a confirmation, and unloads first", async () => {
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    await page.getByTestId("models-delete-all").click();
    await counted(page.getByTestId("model"), 1);
    await page.getByTestId("models-delete-all-yes").click();
    await page.getByTestId("model").waitFor({ state: "detached" });
    await page.getByTestId("used").filter({ hasText: "Nothing stored yet" }).waitFor();
  });

  test("from own URL or HF id: what the policy forbids is said in plain words with a code", async () => {
    await page.getByTestId("model-address").fill("IDEA-Research/ChatRex-7B");
    await page.getByTestId("survey").click();
    const words = await page.getByTestId("model-error").innerText();
    assert.match(words, /^huggingface\.co: .*fetches models from its own site only.*choose its folder here/s);
    assert.match(words, /Error code: Forbidden/);
    assert.doesNotMatch(words, /connect-src|policy/i);
  });

  test("a real model: what it needs, whether it fits here, the steps, and the command to copy", async () => {
    await page.getByTestId("real-models").locator("summary").click();
    const way = page.getByTestId("way-ChatRex-7B");
    await way.getByTestId("way-verdict").filter({ hasText: "Will not run here" }).waitFor();
    await page.screenshot({ path: join(PICTURES, "models-real.png") });
    await way.getByTestId("copy-command").click();
    await way.getByTestId("copy-command-done").filter({ hasText: "Copied" }).waitFor();
    assert.equal(await copied(page), await way.getByTestId("command").innerText());
    assert.match(await copied(page), /^chatrex convert --model ChatRex-7B --upn upn_large\.pth --quant q4 --out /);
  });
});

describe("files of the user", () => {
  let browser, page, place;
  before(async () => {
    place = await mkdtemp(join(tmpdir(), "chatrex-models-"));
    browser = await visit(host);
    page = browser.page;
    await answered(page, 0);
  });
  after(async () => {
    await browser?.close();
    await rm(place, { recursive: true, force: true });
  });

  // Model folders in the browser's storage, and the hashes of their files.
  const stored = () =>
    page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const models = await root.getDirectoryHandle("models", { create: true });
      const found = [];
      for await (const folder of models.values()) {
        const files = {};
        for await (const file of folder.values()) {
          const bytes = await (await file.getFile()).arrayBuffer();
          const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
          files[file.name] = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
          if (file.name === "model.json") files.manifest = JSON.parse(new TextDecoder().decode(bytes));
        }
        found.push(files);
      }
      return found;
    });

  test("from local files: a model is used in place, and nothing is stored", async () => {
    const files = await copyOfNano({ name: "in-place" });
    for (const [name, bytes] of files) await writeFile(join(place, name), bytes);
    await manager(page);
    await page.getByTestId("model-files").setInputFiles([...files.keys()].map((name) => join(place, name)));
    await page.getByTestId("offer").waitFor();
    assert.ok(await page.getByTestId("use-in-place").isDisabled(), "before the licence");
    await page.getByTestId("accept").check();
    await page.getByTestId("use-in-place").click();
    await page.getByTestId("model-state").filter({ hasText: "in-place" }).waitFor({ timeout: LONG });
    await modelReady(page);
    await page.getByTestId("manager-close").click();
    const turn = await ask(page, "How many cats are there?");
    assert.equal((await answered(page, turn)).state, "done");
    assert.deepEqual(await stored(), []);
  });

  test("from local files: a folder used in place is remembered, where the browser has such handles", async () => {
    await page.addInitScript(() => {
      self.showDirectoryPicker = async () => (await navigator.storage.getDirectory()).getDirectoryHandle("mine");
    });
    await page.reload();
    await modelReady(page);
    const files = await copyOfNano({ name: "mine" });
    for (const [name, bytes] of files) {
      await page.evaluate(
        async ([name, base64]) => {
          const root = await navigator.storage.getDirectory();
          const folder = await root.getDirectoryHandle("mine", { create: true });
          const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
          await file.write(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)));
          await file.close();
        },
        [name, bytes.toString("base64")],
      );
    }
    await manager(page);
    await page.getByTestId("folder-in-place").click();
    await page.getByTestId("accept").check();
    await page.getByTestId("use-in-place").click();
    await page.getByTestId("model-state").filter({ hasText: "mine" }).waitFor({ timeout: LONG });
    await page.reload();
    await modelReady(page);
    await manager(page);
    await page.getByTestId("folder-load").click();
    await page.getByTestId("model-state").filter({ hasText: "mine" }).waitFor({ timeout: LONG });
    await page.getByTestId("folder-forget").click();
    await page.getByTestId("folder-model").waitFor({ state: "detached" });
    await page.getByTestId("manager-close").click();
    assert.deepEqual(await stored(), []);
  });

  test("no room: a model runs once without being saved", async () => {
    const other = await visit(host);
    try {
      const { context, page } = other;
      await answered(page, 0);
      await context.route("**/worker_start.js", async (route) => {
        const response = await route.fetch();
        const full = `FileSystemSyncAccessHandle.prototype.truncate = () => {
          throw new DOMException("full", "QuotaExceededError");
        };\n`;
        await route.fulfill({ response, body: full + (await response.text()) });
      });
      await page.reload();
      await modelReady(page);
      const folder = host.add("full", await copyOfNano({ name: "full" }));
      await manager(page);
      await survey(page, folder.address);
      await accept(page);
      await page.getByTestId("run-unsaved").waitFor();
      assert.match(await page.getByTestId("model-error").innerText(), /refused the space.*Quota/s);
      await page.getByTestId("run-unsaved").click();
      await page.getByTestId("model-state").filter({ hasText: "full" }).waitFor({ timeout: LONG });
      await modelReady(page);
      assert.equal((await happened(page, "Ready")).at(-1).name, "full");
    } finally {
      await other.close();
    }
  });

  const checkpoint = async () => {
    const folder = `${CHECKPOINT}/chatrex`;
    const names = (await readdir(folder)).filter((name) => !name.startsWith("."));
    return [...names.map((name) => `${folder}/${name}`), `${CHECKPOINT}/upn_tiny.pth`];
  };
  const choose = async (files) => {
    await manager(page);
    await page.getByTestId("model-files").setInputFiles(files);
  };

  test("conversion: a published checkpoint becomes the files that the native program writes", async () => {
    const files = await checkpoint();
    const out = join(place, "native");
    const name = "model-00001-of-00002";
    const upn = `${CHECKPOINT}/upn_tiny.pth`;
    const options = ["--model", `${CHECKPOINT}/chatrex`, "--upn", upn, "--quant", "q8", "--name", name, "--out", out];
    await run(PROGRAM, ["convert", ...options]);
    await choose(files);
    await page.getByTestId("making").waitFor({ timeout: LONG });
    await page.getByTestId("quantization-q8").check();
    await page.getByTestId("making").filter({ hasText: "q8, groups of 32" }).waitFor({ timeout: LONG });
    assert.ok(await page.getByTestId("making-begin").isDisabled(), "before the licence");
    await page.getByTestId("making-accept").check();
    await page.screenshot({ path: join(PICTURES, "models-making.png") });
    await page.getByTestId("making-begin").click();
    await stands(page, "ready", LONG);
    const [made] = await stored();
    let compared = 0;
    for (const file of await readdir(out)) {
      if (file === "model.json") continue;
      const hash = createHash("sha256").update(await readFile(join(out, file))).digest("hex");
      assert.equal(made[file], hash, file);
      compared += 1;
    }
    assert.equal(compared, 4, "three shards and a tokenizer");
    // The self-test is computed, natively with other instructions; all else is the same.
    const native = JSON.parse(await readFile(join(out, "model.json"), "utf8"));
    const { self_test: here, ...rest } = made.manifest;
    const { self_test: there, ...expected } = native;
    assert.deepEqual(rest, expected);
    here.expected.forEach((value, i) => assert.ok(Math.abs(value - there.expected[i]) <= there.tolerance));
  });

  test("conversion: a cancelled one leaves nothing, and a damaged one says what is wrong", async () => {
    await row(page).getByTestId("delete").click();
    await row(page).getByTestId("delete-yes").click();
    await page.getByTestId("model").waitFor({ state: "detached" });
    await page.getByTestId("manager-close").click();
    const files = await checkpoint();
    await choose(files);
    await page.getByTestId("making").waitFor({ timeout: LONG });
    await page.getByTestId("making-accept").check();
    await page.getByTestId("making-begin").click();
    await page.getByTestId("making-cancel").click();
    await page.getByTestId("making-running").waitFor({ state: "detached" });
    // A file that is being removed cannot be read.
    const isEmpty = async () => (await stored().catch(() => [{ manifest: true }])).every((folder) => !folder.manifest);
    const becomesEmpty = async () => {
      for (let tries = 0; tries < 100; tries += 1) {
        if (await isEmpty()) return true;
        await page.waitForTimeout(100);
      }
      return false;
    };
    assert.ok(await becomesEmpty(), JSON.stringify(await stored().catch(String)));
    await page.getByTestId("manager-close").click();

    const cut = join(place, "model.safetensors");
    await writeFile(cut, Buffer.from([9, 0, 0, 0, 0, 0, 0, 0, 123]));
    await choose([cut, `${CHECKPOINT}/chatrex/config.json`]);
    await page.getByTestId("making-failed").waitFor({ timeout: LONG });
    const words = await page.getByTestId("making-failed").innerText();
    assert.match(words, /model\.safetensors.*a header of 9 bytes does not fit.*Error code: Corrupt/s);
    assert.ok(await becomesEmpty());
  });
});
