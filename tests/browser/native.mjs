// The native program with nano, with which the page is compared.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { PROGRAM } from "./page.mjs";

const run = promisify(execFile);

async function inFolder(use) {
  const folder = await mkdtemp(join(tmpdir(), "chatrex-scene-"));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// One scene of the test seeds: its picture as PNG bytes, and its dialogues.
export function scene(seed) {
  return inFolder(async (folder) => {
    await run(PROGRAM, ["scenes", "--count", "1", "--seed", String(seed), "--out", folder]);
    const lines = (await readFile(join(folder, "dialogues.jsonl"), "utf8")).trim().split("\n");
    return {
      picture: await readFile(join(folder, "images", "000001.png")),
      dialogues: lines.map((line) => JSON.parse(line)),
    };
  });
}

// The native boxes of a picture with their scores, on the CPU.
export const propose = async (picture, ...options) => (await proposed(picture, ...options)).boxes;

// The same with all that the program prints.
export function proposed(picture, ...options) {
  return inFolder(async (folder) => {
    const image = join(folder, "picture.png");
    await writeFile(image, picture);
    const args = ["propose", "--model", "nano", "--image", image, "--json", "--device", "cpu", ...options];
    const { stdout } = await run(PROGRAM, args, { maxBuffer: 1 << 26 });
    return JSON.parse(stdout);
  });
}

// The native answers to questions about a picture, on the CPU.
export const chat = (picture, ...questions) => chatWith([], picture, ...questions);

// The same with more options of `chatrex chat`.
export function chatWith(options, picture, ...questions) {
  return inFolder(async (folder) => {
    const image = join(folder, "picture.png");
    await writeFile(image, picture);
    const asks = questions.flatMap((question) => ["--ask", question]);
    const args = ["chat", "--model", "nano", "--image", image, ...asks, "--json", "--device", "cpu", ...options];
    const { stdout } = await run(PROGRAM, args, { maxBuffer: 1 << 26 });
    return JSON.parse(stdout);
  });
}

// The report of `chatrex parity` on a folder of fixtures, on the CPU; with `only`, of one fixture.
export async function parity(golden, only) {
  const filter = only ? ["--only", only] : [];
  const args = ["parity", "--golden", golden, "--device", "cpu", "--json", ...filter];
  const { stdout } = await run(PROGRAM, args);
  return JSON.parse(stdout);
}
