// The JavaScript module in a page of plain HTML: boxes and answers of the native engine, every kind of
// picture, abort, errors with codes. On the CPU, which is faster than WebGPU in software.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { inFrontOf } from "./devices.mjs";
import { cameraJpeg } from "./exif.mjs";
import { chat, propose } from "./native.mjs";
import { asked, happened, LONG, nothingForbidden, open, URL_OF_PAGE } from "./page.mjs";

const SCENE = new URL("../../web/static/samples/scene.png", import.meta.url);
const PHOTO = new URL("../data/photo/chelsea.png", import.meta.url);
const QUESTION = "What is <obj0>?";
const LONG_QUESTION =
  "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer.";

describe("a page that uses the JavaScript module", () => {
  let browser, page, scene, native;
  before(async () => {
    scene = await readFile(SCENE);
    native = await chat(scene, QUESTION, LONG_QUESTION);
    browser = await open({ webgpu: false, serviceWorkers: "block" });
    page = browser.page;
    await page.goto(`${URL_OF_PAGE}module.html`);
    const ended = /^(Done|Failed)/;
    await page.getByTestId("state").filter({ hasText: ended }).waitFor({ timeout: LONG });
    assert.equal(await page.getByTestId("state").innerText(), "Done");
  });
  after(() => browser?.close());

  test("it prints the boxes of `chatrex propose`", async () => {
    const items = await page.getByTestId("boxes").locator("li").allInnerTexts();
    near(items.map((item) => JSON.parse(item)), await propose(scene));
  });

  test("it prints the answer of `chatrex chat`", async () => {
    const printed = await page.getByTestId("answer").innerText();
    const words = native.turns[0].spans.map(({ text }) => text).join("");
    assert.notEqual(words.trim(), "");
    assert.equal(printed.trim(), words.trim());
    const [done] = await happened(page, "Done");
    assert.equal(done.answer.text, native.turns[0].text);
  });

  test("the card describes the model", async () => {
    const [ready] = await happened(page, "Ready");
    const card = await page.evaluate(() => model.card);
    assert.deepEqual(card, ready);
    assert.deepEqual([card.name, card.device, card.asked_for], ["nano", "cpu", `${URL_OF_PAGE}models/nano/`]);
  });

  test("score, overlap and number of boxes can be chosen", async () => {
    const [all, few, first, none] = await page.evaluate(async () => [
      await model.propose({ score: 0, nms: 0, limit: Infinity }),
      await model.propose({ score: 0.5, nms: 0.3 }),
      await model.propose({ limit: 1 }),
      await model.propose({ score: 1.1 }),
    ]);
    const [proposed] = await happened(page, "Proposed");
    assert.deepEqual(all, proposed.boxes);
    near(few, await propose(scene, "--score", "0.5", "--nms", "0.3"));
    assert.deepEqual(first, all.slice(0, 1));
    assert.deepEqual(none, []);
  });

  test("the fine prompt gives the boxes of the native engine", async () => {
    const fine = await page.evaluate(() => model.propose({ granularity: "fine" }));
    near(fine, await propose(scene, "--prompt", "fine"));
  });

  test("an iterated answer grows to the complete one", async () => {
    const { answer, returned, seen } = await page.evaluate(async (question) => {
      const turn = model.ask(question, { boxes });
      const iterator = turn[Symbol.asyncIterator]();
      const seen = [];
      let step;
      while (!(step = await iterator.next()).done) seen.push(step.value);
      return { answer: await turn.answer, returned: step.value, seen };
    }, LONG_QUESTION);
    assert.equal(answer.text, native.turns[1].text);
    assert.deepEqual(returned, answer);
    assert.ok(seen.length > 1, "it came in parts");
    assert.deepEqual(seen.at(-1), answer.spans);
    const words = (spans) => spans.map(({ text }) => text).join("");
    assert.ok(words(seen[0]).length < words(answer.spans).length);
  });

  test("two questions at the same time get their own answers", async () => {
    const texts = await page.evaluate(
      async ([first, second]) => {
        const turns = [model.ask(first, { boxes }), model.ask(second, { boxes: boxes.map(({ box }) => box) })];
        return Promise.all(turns.map(async ({ answer }) => (await answer).text));
      },
      [QUESTION, LONG_QUESTION],
    );
    assert.deepEqual(texts, native.turns.map(({ text }) => text));
  });

  test("maxTokens and sampling reach the engine", async () => {
    const answer = await page.evaluate(
      (question) =>
        model.ask(question, { boxes, maxTokens: 2, sampling: { temperature: 1, top_p: 0.5, seed: 7 } }).answer,
      LONG_QUESTION,
    );
    assert.deepEqual([answer.stop, answer.tokens], ["length", 2]);
    const { max_tokens, sampling } = (await asked(page, "Ask")).at(-1);
    assert.equal(max_tokens, 2);
    assert.deepEqual(sampling, { temperature: 1, top_p: 0.5, seed: 7 });
  });

  test("an aborted answer ends with an AbortError, and the next question works", async () => {
    const { thrown, rejected, text } = await page.evaluate(
      async ([long, short]) => {
        const controller = new AbortController();
        const turn = model.ask(long, { boxes, signal: controller.signal });
        let thrown;
        try {
          for await (const _ of turn) controller.abort();
        } catch (error) {
          thrown = error.name;
        }
        const rejected = await turn.answer.catch((error) => error.name);
        const next = await model.ask(short, { boxes }).answer;
        return { thrown, rejected, text: next.text };
      },
      [LONG_QUESTION, QUESTION],
    );
    assert.deepEqual([thrown, rejected], ["AbortError", "AbortError"]);
    assert.equal(text, native.turns[0].text);
    await endedEarly(page, -2);
  });

  test("an answer that is no longer read stops and keeps its part", async () => {
    for (const how of ["break", "stop"]) {
      const answer = await page.evaluate(
        async ([question, how]) => {
          const turn = model.ask(question, { boxes });
          for await (const _ of turn) {
            if (how === "break") break;
            turn.stop();
          }
          return turn.answer;
        },
        [LONG_QUESTION, how],
      );
      assert.equal(answer.stop, "stopped", how);
      assert.notEqual(answer.text, "");
      assert.ok(native.turns[1].text.startsWith(answer.text), answer.text);
      await endedEarly(page, -1);
    }
  });

  test("a signal that was aborted before sends nothing", async () => {
    const before = (await asked(page, "Ask")).length;
    const names = await page.evaluate(async () => {
      const signal = AbortSignal.abort();
      const calls = [
        ChatRex.load("models/nano/", { signal }),
        model.look(new Blob(), { signal }),
        model.ask("?", { signal }).answer,
      ];
      return Promise.all(calls.map((call) => call.catch((error) => error.name)));
    });
    assert.deepEqual(names, ["AbortError", "AbortError", "AbortError"]);
    assert.equal((await asked(page, "Ask")).length, before);
  });

  test("every kind of picture gives the same boxes", async () => {
    const found = await page.evaluate(async () => {
      const blob = await (await fetch("samples/scene.png")).blob();
      const bitmap = await createImageBitmap(blob);
      const { width, height } = bitmap;
      const context = new OffscreenCanvas(width, height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const data = context.getImageData(0, 0, width, height);
      const rgb = data.data.filter((_, index) => index % 4 < 3);
      const found = [];
      for (const picture of [blob, bitmap, data, { width, height, rgb }]) found.push(await model.look(picture));
      if (rgb.length !== width * height * 3) throw new Error("the bytes of the caller were taken");
      return found;
    });
    assert.ok(found[0].length > 0);
    for (const boxes of found) assert.deepEqual(boxes, found[0]);
  });

  test("transparent pixels are blended with white", async () => {
    const [transparent, opaque] = await page.evaluate(async () => {
      const [width, height] = [320, 240];
      const data = new ImageData(width, height);
      const rgb = new Uint8Array(width * height * 3);
      for (let pixel = 0; pixel < width * height; pixel += 1) {
        const [x, y] = [pixel % width, Math.floor(pixel / width)];
        const alpha = x > 80 && x < 200 && y > 60 && y < 180 ? 200 : (x + y) % 100;
        const color = [255, (x * 3) % 256, 40];
        data.data.set([...color, alpha], pixel * 4);
        rgb.set(color.map((value) => Math.round((value * alpha + 255 * (255 - alpha)) / 255)), pixel * 3);
      }
      const all = { score: 0, limit: Infinity };
      return [await model.look(data, all), await model.look({ width, height, rgb }, all)];
    });
    assert.ok(opaque.length > 0);
    assert.deepEqual(transparent, opaque);
  });

  test("the EXIF orientation of a photograph is applied", async () => {
    const photo = await cameraJpeg(page, await readFile(PHOTO), { isRotated: true });
    await page.evaluate(async (base64) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      await model.look(new Blob([bytes], { type: "image/jpeg" }));
    }, photo.toString("base64"));
    const { pixels } = (await asked(page, "Look")).at(-1);
    assert.deepEqual(pixels, { width: 451, height: 300 });
  });

  test("pictures are sent in the order of the calls, and the last one is asked about", async () => {
    const { looks, ask } = await page.evaluate(async () => {
      const blob = await (await fetch("samples/scene.png")).blob();
      const before = self.requests.length;
      const white = { width: 80, height: 60, rgb: new Uint8Array(80 * 60 * 3).fill(255) };
      await Promise.all([model.look(blob), model.look(white)]);
      await model.ask("What is in the picture?", { maxTokens: 1 }).answer;
      const requests = self.requests.slice(before);
      await model.look(blob);
      return { looks: requests.flatMap(({ Look }) => Look ?? []), ask: requests.at(-1).Ask };
    });
    assert.equal(looks.length, 2);
    assert.deepEqual(looks[1].pixels, { width: 80, height: 60 });
    assert.equal(ask.picture, looks[1].picture);
  });

  const wrong = {
    "a file that is no picture": [() => model.look(new Blob(["no picture"])), "Unsupported", "Picture"],
    "something else than a picture": [() => model.look("scene.png"), "InvalidInput", "Picture"],
    "a picture without pixels": [
      () => model.look({ width: 0, height: 3, rgb: new Uint8Array() }),
      "InvalidInput",
      "Picture",
    ],
    "a picture of 100 megapixels": [
      () => model.look({ width: 10_000, height: 10_000, rgb: new Uint8Array() }),
      "InvalidInput",
      "Picture",
    ],
    "a picture with too few bytes": [
      () => model.look({ width: 2, height: 2, rgb: new Uint8Array(11) }),
      "InvalidInput",
      "Picture",
    ],
    "an unknown prompt": [() => model.propose({ granularity: "tiny" }), "InvalidInput", "Picture"],
    "more than 100 boxes": [
      () => model.ask("?", { boxes: Array(101).fill([0, 0, 9, 9]) }).answer,
      "InvalidInput",
      "Question",
    ],
    "a box without numbers": [() => model.ask("?", { boxes: [[0, 0, NaN, 9]] }).answer, "InvalidInput", "Question"],
    "an unknown sampling parameter": [
      () => model.ask("?", { sampling: { constructor: 1 } }).answer,
      "InvalidInput",
      "Question",
    ],
    "a temperature out of range": [
      () => model.ask("?", { sampling: { temperature: -1 } }).answer,
      "InvalidInput",
      "Question",
    ],
    "an unknown device": [() => ChatRex.load("models/nano/", { device: "abacus" }), "InvalidInput", "Device"],
  };
  for (const [what, [call, code, kind]] of Object.entries(wrong)) {
    test(`${what} is an error with the code ${code}`, async () => {
      const failure = await failureOf(page, call);
      console.log(failure.message);
      assert.deepEqual([failure.isOwn, failure.code, failure.kind], [true, code, kind]);
      const text = await page.evaluate(
        async (question) => (await model.ask(question, { boxes }).answer).text,
        QUESTION,
      );
      assert.equal(text, native.turns[0].text, "the model still answers");
    });
  }

  test("there were no foreign requests, policy violations or errors", () => nothingForbidden(browser.seen));

  test("a folder without a model is an error with the code NotFound", async () => {
    const failure = await failureOf(page, () => ChatRex.load("models/nowhere/"));
    assert.deepEqual([failure.isOwn, failure.code, failure.kind], [true, "NotFound", "Network"]);
    assert.equal(failure.place, `${URL_OF_PAGE}models/nowhere/model.json`);
  });

  test("a worker that cannot start is an error with the code WorkerLost", async () => {
    const failure = await failureOf(page, () => ChatRex.load("models/nano/", { workerUrl: "nowhere.js" }));
    assert.deepEqual([failure.isOwn, failure.code, failure.kind], [true, "WorkerLost", "Device"]);
  });

  test("loading can be aborted", async () => {
    const name = await page.evaluate(async () => {
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const loading = ChatRex.load("models/nano/", { device: "cpu", onProgress, signal: controller.signal });
      return loading.then(() => "loaded", (error) => error.name);
    });
    assert.equal(name, "AbortError");
  });

  test("a worker that stops rejects every pending and later call", async () => {
    const fail = `addEventListener("message", ({ data }) => {
      if (data[0].includes("Fail now")) throw new Error("out of order");
    });`;
    await inFrontOf(page, (body) => `${fail}\n${body}`);
    const failures = await page.evaluate(async () => {
      const other = await ChatRex.load("models/nano/", { device: "cpu" });
      await other.look({ width: 64, height: 48, rgb: new Uint8Array(64 * 48 * 3) });
      // The worker yields between two tokens of the first answer, and then gets the second question.
      const pending = [other.ask("How many cats are there?").answer, other.ask("Fail now").answer];
      const { message } = await pending[1].catch((error) => error);
      const calls = [...pending, other.propose(), other.ask("What is it?").answer];
      const codes = await Promise.all(calls.map((call) => call.catch((error) => error.code)));
      return { codes, message };
    });
    assert.deepEqual(failures.codes, Array(4).fill("WorkerLost"));
    assert.match(failures.message, /out of order/);
  });

  test("a disposed model rejects every pending and later call", async () => {
    const codes = await page.evaluate(async (question) => {
      const calls = [model.propose({ granularity: "fine" }), model.ask(question).answer];
      model.dispose();
      calls.push(model.look(new Blob()), model.propose(), model.ask(question).answer);
      model.dispose();
      return Promise.all(calls.map((call) => call.catch((error) => error.code)));
    }, QUESTION);
    assert.deepEqual(codes, Array(5).fill("Cancelled"));
  });
});

// The error of `call`, a function that runs in the page.
function failureOf(page, call) {
  return page.evaluate(`(async () => {
    try {
      await (${call})();
    } catch (error) {
      const { message, code, kind, place } = error;
      return { isOwn: error instanceof ChatRexError, message, code, kind, place };
    }
    throw new Error("the call did not fail");
  })()`);
}

// Asserts that the worker stopped a turn: its event is at `index` of all ended turns.
async function endedEarly(page, index) {
  const { turn, answer } = (await happened(page, "Done")).at(index);
  assert.equal(answer.stop, "stopped");
  assert.ok((await asked(page, "Stop")).some((stop) => stop.turn === turn), "the module sent Stop");
}

// Asserts that boxes differ by a pixel and scores by a hundredth at most.
function near(found, expected) {
  assert.ok(expected.length > 0, "there are boxes");
  assert.equal(found.length, expected.length, "as many boxes");
  found.forEach(({ box, score }, index) => {
    box.forEach((value, corner) => {
      const off = Math.abs(value - expected[index].box[corner]);
      assert.ok(off <= 1, `box ${index}: ${box} instead of ${expected[index].box}`);
    });
    assert.ok(Math.abs(score - expected[index].score) <= 0.01, `score of box ${index}`);
  });
}
