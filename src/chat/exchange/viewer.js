// Links the phrases of a saved conversation with their boxes: hover, focus and click.
"use strict";
const phrases = [...document.querySelectorAll(".phrase")];
const boxes = [...document.querySelectorAll(".box")];
const picture = document.querySelector("figure");
const turns = [...new Set(phrases.map((phrase) => phrase.dataset.turn))];
let shown = turns.at(-1) ?? "";
let pinned = null;

// Lights the boxes of a phrase, or a box and its phrases; nothing without arguments.
function light(turn, numbers) {
  const on = numbers ? new Set(numbers) : null;
  const visible = on ? turn : shown;
  picture.classList.toggle("pointed", Boolean(on));
  for (const box of boxes) {
    box.classList.toggle("shown", box.dataset.turn === visible);
    box.classList.toggle("lit", Boolean(on) && box.dataset.turn === turn && on.has(box.dataset.box));
  }
  for (const phrase of phrases) {
    const lit = on && phrase.dataset.turn === turn && of(phrase).some((number) => on.has(number));
    phrase.classList.toggle("lit", Boolean(lit));
    phrase.setAttribute("aria-pressed", String(phrase === pinned));
  }
}

const of = (phrase) => phrase.dataset.boxes.split(" ").filter(Boolean);
const rest = () => (pinned ? light(pinned.dataset.turn, of(pinned)) : light());

for (const phrase of phrases) {
  const enter = () => light(phrase.dataset.turn, of(phrase));
  phrase.addEventListener("pointerenter", enter);
  phrase.addEventListener("focus", enter);
  phrase.addEventListener("pointerleave", rest);
  phrase.addEventListener("blur", rest);
  phrase.addEventListener("click", () => {
    pinned = pinned === phrase ? null : phrase;
    shown = phrase.dataset.turn;
    rest();
  });
}
for (const box of boxes) {
  box.addEventListener("pointerenter", () => light(box.dataset.turn, [box.dataset.box]));
  box.addEventListener("pointerleave", rest);
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    pinned = null;
    rest();
  }
});
light();
