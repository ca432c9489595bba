// The model store: downloads over faulty networks and from faulty hosts, imports, loading, deleting. On
// the CPU, which is faster than WebGPU in software.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { copyOfNano, sizeOf, startHost } from "./faults.mjs";
import { accept, bring, complains, kept, look, manager, memory, moves, remove, row, stands, survey, visit } from "./manager.mjs";
import { answered, ask, counted, happened, modelReady, nothingForbidden, LONG, PICTURES } from "./page.mjs";

const PIECE = 1 << 16;
const AT_ONCE = 3;

let host;
before(async () => {
  host = await startHost();
});
after(() => host?.close());

describe("a download", () => {
  let browser, page, files, folder, nano;
  before(async () => {
    files = await copyOfNano({ name: "faulty" });
    folder = host.add("faulty", files, {
      cutEvery: 1_500_000,
      corruptOnce: ["decoder.safetensors", 200_000],
      rate: 1_500_000,
    });
    browser = await visit(host);
    page = browser.page;
    await answered(page, 0);
    // The reload restores this answer without asking again.
    [nano] = await happened(page, "Done");
  });
  after(() => browser?.close());

  test("nothing is downloaded before the licence is accepted", async () => {
    await manager(page);
    await survey(page, folder.address);
    assert.equal(folder.served, 0);
    assert.ok(await page.getByTestId("begin").isDisabled());
    assert.match(await page.getByTestId("licence-text").innerText(), /trained by this project/);
    assert.match(await page.getByTestId("verdict").innerText(), /^Fits: runs on the CPU/);
    await shot(page, "models-offer");
    await page.getByTestId("accept").check();
    await page.getByTestId("begin").click();
  });

  test("it survives closed connections, a damaged piece and a reload, and fetches little twice", async () => {
    await page.waitForFunction(
      () => Number(document.querySelector('[data-testid="model"] progress')?.value) > 400,
      null,
      { timeout: LONG },
    );
    await shot(page, "models-moving");
    assert.match(await page.title(), /%/);
    await page.reload();
    await modelReady(page);
    const before = folder.served;
    const shell = await memory(page);
    await manager(page);
    await stands(page, "partial");
    const words = await page.getByTestId("model-words").innerText();
    assert.match(words, /is here/);
    await row(page).getByTestId("resume").click();
    await stands(page, "ready");
    const size = sizeOf(files);
    const peak = await memory(page);
    console.log(`wasm memory: ${shell.toFixed(0)} MB before, ${peak.toFixed(0)} MB at most`);
    assert.ok(peak - shell < 128, "pieces do not accumulate in memory");
    const limit = size * 1.02 + AT_ONCE * PIECE;
    console.log(`${folder.served} bytes served for ${size}, ${before} of them before the reload`);
    assert.ok(before > size * 0.4, "the reload came in the middle");
    assert.equal(folder.corruptOnce, undefined, "the damaged piece was sent");
    assert.ok(folder.served <= limit, `${folder.served} bytes served, at most ${limit} expected`);
  });

  test("what is stored is what was served, and the manager says how much", async () => {
    assert.equal(await page.getByTestId("used").innerText(), "Used by this page: 7.9 MB");
    const persists = await page.evaluate(() => navigator.storage.persisted());
    const note = page.getByTestId("volatile");
    if (!persists) assert.match(await note.innerText(), /did not promise to keep this model/);
    else await counted(note, 0);
    const hashes = await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const models = await root.getDirectoryHandle("models");
      const found = {};
      for await (const folder of models.values()) {
        for await (const file of folder.values()) {
          const bytes = await (await file.getFile()).arrayBuffer();
          const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
          found[file.name] = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
        }
      }
      return found;
    });
    for (const [name, bytes] of files) {
      assert.equal(hashes[name], createHash("sha256").update(bytes).digest("hex"), name);
    }
  });

  test("it answers exactly as nano does, and the conversation continues", async () => {
    const turns = await page.getByTestId("answer").count();
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    await page.getByTestId("manager-close").click();
    await counted(page.getByTestId("answer"), turns);
    assert.equal((await askedAgain(page)).text, nano.answer.text);
    assert.equal((await happened(page, "Ready")).at(-1).name, "faulty");
  });

  test("another tab shows that it is in use", async () => {
    const other = await browser.context.newPage();
    await other.goto(`${host.url}?model=nano`);
    await modelReady(other);
    await manager(other);
    await stands(other, "elsewhere");
    await page.bringToFront();
    await manager(page);
    await row(page).getByTestId("unload").click();
    await stands(page, "ready");
    await other.bringToFront();
    // The list follows the other tab by itself.
    await stands(other, "ready");
    await other.close();
  });

  test("only a damaged piece is fetched again", async () => {
    await page.bringToFront();
    await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const models = await root.getDirectoryHandle("models");
      for await (const folder of models.values()) {
        const file = await folder.getFileHandle("upn.safetensors");
        const writable = await file.createWritable({ keepExistingData: true });
        await writable.write({ type: "write", position: 1_000_000, data: new Uint8Array(8) });
        await writable.close();
      }
    });
    const before = folder.served;
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    assert.ok(folder.served - before <= 2 * PIECE, `${folder.served - before} bytes came again`);
    assert.ok(folder.served > before, "it was fetched");
    await row(page).getByTestId("unload").click();
    await stands(page, "ready");
  });

  test("it is deleted only after a confirmation", async () => {
    await row(page).getByTestId("delete").click();
    assert.match(await row(page).innerText(), /cannot be undone/);
    await row(page).getByTestId("delete-yes").click();
    await page.getByTestId("model").waitFor({ state: "detached", timeout: LONG });
    assert.equal(await kept(page), 0);
  });

  test("there were no foreign requests and no policy violations", () => {
    const { foreign, violations, errors } = browser.seen;
    // The test closes connections itself.
    const others = errors.filter((error) => !/ERR_|Failed to load/.test(error));
    const own = foreign.filter((address) => !address.startsWith(host.url));
    nothingForbidden({ foreign: own, violations, errors: others });
  });
});

describe("pause and cancel", () => {
  let browser, page, folder;
  before(async () => {
    folder = host.add("slow", await copyOfNano({ name: "slow" }), { rate: 300_000 });
    browser = await visit(host);
    page = browser.page;
    await modelReady(page);
    await manager(page);
  });
  after(() => browser?.close());

  test("pause stops at once, resume continues, cancel keeps the pieces", async () => {
    await bring(page, folder.address);
    await moves(page, folder);
    await row(page).getByTestId("pause").click();
    await stands(page, "paused");
    await new Promise((done) => setTimeout(done, 300));
    const paused = folder.served;
    await new Promise((done) => setTimeout(done, 700));
    assert.ok(folder.served - paused <= AT_ONCE * PIECE, "nothing is fetched while it is paused");
    assert.match(await page.getByTestId("model-words").innerText(), /Paused\. .* is kept\./);
    await shot(page, "models-paused");
    await row(page).getByTestId("resume").click();
    await moves(page, folder);
    await row(page).getByTestId("cancel").click();
    await row(page).getByTestId("cancel-keep").click();
    await stands(page, "partial");
    assert.equal(await kept(page), 1);
  });

  test("cancel deletes the pieces", async () => {
    await row(page).getByTestId("resume").click();
    await moves(page, folder);
    await row(page).getByTestId("cancel").click();
    await row(page).getByTestId("cancel-delete").click();
    await page.getByTestId("model").waitFor({ state: "detached", timeout: LONG });
    assert.equal(await kept(page), 0);
  });
});

describe("a lost worker", () => {
  let browser, page, folder;
  before(async () => {
    folder = host.add("lost", await copyOfNano({ name: "lost" }));
    browser = await visit(host);
    page = browser.page;
    await answered(page, 0);
    await manager(page);
    await bring(page, folder.address);
    await stands(page, "ready");
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    await page.getByTestId("manager-close").click();
  });
  after(() => browser?.close());

  test("is replaced, the same model is loaded from storage, and the conversation stays", async () => {
    const served = folder.served;
    const turns = await page.getByTestId("answer").count();
    const ready = (await happened(page, "Ready")).length;
    await page.workers()[0].evaluate(() => {
      const post = self.postMessage;
      let dying = false;
      self.postMessage = (message) => {
        if (!dying) post.call(self, message);
        if (dying || !message[0].startsWith('{"Said"')) return;
        dying = true;
        setTimeout(() => {
          throw new Error("the test wants it");
        });
      };
    });
    const turn = await ask(page, "How many objects are there?");
    await page.waitForFunction(
      (ready) => self.events.filter((event) => event.Ready).length > ready,
      ready,
      { timeout: LONG },
    );
    assert.equal((await happened(page, "Ready")).at(-1).name, "lost");
    assert.equal(folder.served, served, "nothing was fetched again");
    await page.getByTestId("ask-again").waitFor();
    assert.match(await page.getByTestId("recovery").innerText(), /Restored/);
    await counted(page.getByTestId("answer"), turns + 1);
    await counted(page.getByTestId("error"), 0, "one message, not two");
    assert.equal((await answered(page, turn)).state, "failed");
    await again(page, "ask-again");
    assert.equal((await answered(page, turn)).state, "done");
    await counted(page.getByTestId("recovery"), 0);
  });
});

describe("hosts", () => {
  let browser, page;
  before(async () => {
    browser = await visit(host);
    page = browser.page;
    await modelReady(page);
    await manager(page);
  });
  after(() => browser?.close());

  const wrong = {
    "that sends a web page": [{ html: true }, /tokenizer\.json: is a web page/],
    "that leads elsewhere": [{ redirect: "http://127.0.0.1:9/x" }, /another site/],
    "with a shard one byte short": [{ short: "towers.safetensors" }, /towers\.safetensors: has \d+ bytes instead of \d+/],
    "with a missing shard": [{ absent: "decoder.safetensors" }, /decoder\.safetensors.*404/],
  };
  for (const [what, [faults, says]] of Object.entries(wrong)) {
    test(`one ${what} is named`, async () => {
      const files = await copyOfNano({ name: "wrong" });
      if (faults.absent) files.delete(faults.absent);
      const folder = host.add("wrong", files, faults);
      await bring(page, folder.address);
      await complains(page, says);
      if (await page.getByTestId("model").count()) await remove(page);
    });
  }

  const manifests = {
    "of a newer version": [(manifest) => ({ ...manifest, version: 3 }), /version 3/],
    "that leaves its folder": [
      (manifest) => ({ ...manifest, shards: manifest.shards.map((s) => ({ ...s, name: `../${s.name}` })) }),
      /not a plain name/,
    ],
  };
  for (const [what, [change, says]] of Object.entries(manifests)) {
    test(`a manifest ${what} is refused`, async () => {
      const folder = host.add("manifest", await copyOfNano({ name: "manifest", change }));
      await look(page, folder.address);
      await complains(page, says);
      assert.equal(folder.served, 0);
    });
  }

  test("a hub is blocked by the policy, and the page says so", async () => {
    await look(page, "owner/name@main");
    await complains(page, /huggingface\.co.*another site.*Forbidden/s);
  });
});

describe("files of the user", () => {
  let browser, page, files, place;
  before(async () => {
    files = await copyOfNano({ name: "own" });
    place = await mkdtemp(join(tmpdir(), "chatrex-model-"));
    for (const [name, bytes] of files) await writeFile(join(place, name), bytes);
    browser = await visit(host);
    page = browser.page;
    await answered(page, 0);
    await manager(page);
  });
  after(async () => {
    await browser?.close();
    await rm(place, { recursive: true, force: true });
  });
  const choose = (names) => page.getByTestId("model-files").setInputFiles(names.map((name) => join(place, name)));

  test("a missing one is named", async () => {
    await choose([...files.keys()].filter((name) => name !== "towers.safetensors"));
    await complains(page, /towers\.safetensors: is not among the files/);
  });

  test("one with a flipped bit is named and not accepted", async () => {
    const name = "upn.safetensors";
    const bytes = Buffer.from(files.get(name));
    bytes[2_000_000] ^= 1;
    await writeFile(join(place, name), bytes);
    await choose([...files.keys()]);
    await accept(page);
    await complains(page, /upn\.safetensors, bytes 1966080 to 2031616.*damaged/i);
    await stands(page, "partial");
    await writeFile(join(place, name), files.get(name));
  });

  test("chosen again they are imported and answer", async () => {
    await choose([...files.keys()]);
    await accept(page);
    await stands(page, "ready");
    await row(page).getByTestId("load").click();
    await stands(page, "loaded");
    await shot(page, "models-loaded");
    await page.getByTestId("manager-close").click();
    assert.notEqual((await askedAgain(page)).text, "");
  });
});

// Asks the last question again, with the same boxes, and returns the answer.
const askedAgain = (page) => again(page, "retry");

async function again(page, button) {
  const before = (await happened(page, "Done")).length;
  await page.getByTestId(button).last().click();
  await page.waitForFunction(
    (before) => self.events.filter((event) => event.Done).length > before,
    before,
    { timeout: LONG },
  );
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  return (await happened(page, "Done")).at(-1).answer;
}

async function shot(page, name) {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    await page.setViewportSize({ width, height });
    await page.screenshot({ path: join(PICTURES, `${name}-${width}.png`) });
  }
  await page.setViewportSize({ width: 1280, height: 800 });
}
