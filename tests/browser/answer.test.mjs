// A first visit on WebGPU: the sample is answered, a picture is dropped and asked about, an answer is stopped.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { logPipelines, noneLater, warmedUp } from "./devices.mjs";
import { chat, chatWith, scene } from "./native.mjs";
import {
  answered,
  ask,
  asked,
  drawnBoxes,
  drop,
  handling,
  happened,
  lit,
  looked,
  nothingForbidden,
  open,
  slide,
  URL_OF_NANO,
} from "./page.mjs";

const DESCRIBE =
  "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer.";

describe("a first visit", () => {
  let browser, page, pipelines, compiled;
  before(async () => {
    browser = await open({ serviceWorkers: "block" });
    page = browser.page;
    pipelines = await logPipelines(page);
    await page.goto(URL_OF_NANO);
  });
  after(() => browser?.close());

  test("the sample is answered live", async () => {
    const { state, words } = await answered(page, 0);
    assert.equal(state, "done");
    assert.notEqual(words.trim(), "");
    assert.doesNotMatch(words, /<|obj\d/, "no tag is shown");
    const [ready] = await happened(page, "Ready");
    console.log(`computed on ${ready.device}, ${ready.adapter}`);
    assert.equal(ready.device, "wgpu");
    const [done] = await happened(page, "Done");
    assert.ok(done.answer.tokens > 1, "the model wrote it");
    const figures = page.getByTestId("figures").first();
    assert.match(await figures.textContent(), /[0-9.]+ MB allocated by this page/);
    assert.ok(done.answer.gpu_bytes > ready.weight_bytes / 2, `${done.answer.gpu_bytes} bytes`);
  });

  test("shaders are compiled once, most of them after the model is ready", async () => {
    compiled = await warmedUp(pipelines, 20);
  });

  test("a dropped scene gives the boxes and answers of the native engine", async () => {
    const { picture, dialogues } = await scene(900_001);
    const detect = dialogues.find((dialogue) => /detect/.test(dialogue.question)).question;
    await looked(page, () => drop(page, picture, "scene.png", "image/png"));
    for (const question of [DESCRIBE, detect]) {
      const native = await chat(picture, question);
      assert.ok(native.boxes.length > 0, "the scene has boxes");
      const turn = await ask(page, question);
      assert.equal((await answered(page, turn)).state, "done");
      const done = (await happened(page, "Done")).at(-1);
      assert.equal(done.answer.text, native.turns[0].text, question);
      near((await asked(page, "Ask")).at(-1).boxes, native.boxes);
      near(await drawnBoxes(page), native.boxes);
    }
  });

  test("a phrase highlights exactly its boxes", async () => {
    const phrases = await page.getByTestId("phrase").all();
    const linked = [];
    for (const phrase of phrases) {
      if (await phrase.getAttribute("data-objects")) linked.push(phrase);
    }
    assert.ok(linked.length > 0, "the last answers point at boxes");
    for (const phrase of linked.slice(-3)) {
      await phrase.hover();
      assert.deepEqual(await lit(page), numbers(await phrase.getAttribute("data-objects")));
      await page.mouse.move(0, 0);
      await page.waitForFunction(() => !document.querySelector('[data-lit="true"]'));
    }
  });

  test("a clicked phrase keeps its boxes highlighted until Escape", async () => {
    const phrase = page.locator('[data-testid="phrase"]:not([data-objects=""])').last();
    const objects = numbers(await phrase.getAttribute("data-objects"));
    await phrase.click();
    await page.mouse.move(0, 0);
    assert.deepEqual(await lit(page), objects);
    await page.keyboard.press("Escape");
    await phrase.blur();
    await page.waitForFunction(() => !document.querySelector('[data-lit="true"]'));
  });

  test("an answer stops midway and the next question works", async () => {
    const before = (await happened(page, "Said")).length;
    const turn = await ask(page, DESCRIBE);
    await page.evaluate(async (before) => {
      const frame = () => new Promise(requestAnimationFrame);
      while (self.events.filter((event) => event.Said).length <= before) await frame();
      document.querySelector('[data-testid="stop"]').click();
    }, before);
    assert.equal((await answered(page, turn)).state, "stopped");
    const stopped = (await happened(page, "Done")).at(-1);
    assert.equal(stopped.answer.stop, "stopped");
    assert.equal((await answered(page, await ask(page, DESCRIBE))).state, "done");
  });

  test("sliders filter without asking the engine", async () => {
    const looks = (await asked(page, "Look")).length;
    const all = await drawnBoxes(page);
    const usual = await page.getByTestId("score-slider").inputValue();
    await slide(page, "score-slider", "0.99");
    const few = await drawnBoxes(page);
    await slide(page, "score-slider", usual);
    assert.ok(few.length < all.length, `${few.length} of ${all.length} boxes above 0.99`);
    assert.deepEqual(await drawnBoxes(page), all);
    assert.equal((await asked(page, "Look")).length, looks);
  });

  test("a sampled answer is that of the native engine with the same seed", async () => {
    const { picture, dialogues } = await scene(900_001);
    const detect = dialogues.find((dialogue) => /detect/.test(dialogue.question)).question;
    await page.getByTestId("sampling-open").click();
    await slide(page, "temperature-slider", "1");
    await slide(page, "top-p-slider", "0.95");
    const turn = await ask(page, detect);
    assert.equal((await answered(page, turn)).state, "done");
    const { sampling } = (await asked(page, "Ask")).at(-1);
    assert.ok(Math.abs(sampling.top_p - 0.95) < 1e-6 && sampling.temperature === 1 && sampling.grammar);
    const options = ["--temperature", "1", "--top-p", "0.95", "--seed", String(sampling.seed)];
    const native = await chatWith(options, picture, detect);
    const done = (await happened(page, "Done")).at(-1);
    assert.equal(done.answer.text, native.turns[0].text);
    await page.getByTestId("sampling-open").click();
    await slide(page, "temperature-slider", "0");
    await page.getByTestId("grammar").uncheck();
    await answered(page, await ask(page, detect));
    const last = (await asked(page, "Ask")).at(-1).sampling;
    assert.deepEqual([last.temperature, last.grammar], [0, false]);
    await page.getByTestId("sampling-open").click();
    await page.getByTestId("grammar").check();
    await page.keyboard.press("Escape");
  });

  test("a question can be asked with the keyboard alone", async () => {
    const turn = await page.getByTestId("answer").count();
    await page.getByTestId("question").focus();
    await page.keyboard.type("How many objects are there?");
    await page.keyboard.press("Enter");
    assert.equal((await answered(page, turn)).state, "done");
  });

  test("typing and sliding while the model works", async () => {
    const idle = await handling(page);
    const turn = await ask(page, "Please describe this image in detail.");
    const busy = await handling(page);
    const still = await page.getByTestId("stop").isVisible();
    await answered(page, turn);
    for (const kind of ["typing", "sliding"]) {
      const [a, b] = [idle[kind], busy[kind]];
      console.log(`${kind}: idle ${a.toFixed(1)} ms, busy ${b.toFixed(1)} ms, ratio ${(b / a).toFixed(2)}`);
      assert.ok(Number.isFinite(b / a));
    }
    console.log(still ? "the model worked throughout" : "the answer ended before the last key");
  });

  test("no kernel of this project is compiled later", () => noneLater(pipelines, compiled, { stock: false }));

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

function near(boxes, expected) {
  assert.equal(boxes.length, expected.length, "as many boxes");
  boxes.forEach((box, index) => {
    box.forEach((value, corner) => {
      const off = Math.abs(value - expected[index][corner]);
      assert.ok(off <= 1, `box ${index}: ${box} instead of ${expected[index]}`);
    });
  });
}

const numbers = (list) => list.split(",").map(Number).sort((a, b) => a - b);
