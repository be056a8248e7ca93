// The live picture with a square on it, moved by touch, by keyboard and by sliders.
import { all, complain, find, Refused, say, submit } from "./common.js";

const form = find("#fit");
const [width, height] = [Number(form.dataset.width), Number(form.dataset.height)];
const square = JSON.parse(form.dataset.square);
const [sensor, box, corner] = [find("#sensor"), find("#square"), find("#corner")];
const SMALLEST = 90;
const PAUSE_MS = 40; // at most 25 pictures a second; a phone needs no more
const SLIDERS = ["rotation", "side", "x", "y"];

const between = (low, value, high) => Math.round(Math.min(high, Math.max(low, value)));

/** Another square, kept on the sensor. */
function place(changed) {
  Object.assign(square, changed);
  square.side = between(SMALLEST, square.side, Math.min(width, height));
  square.x = between(0, square.x, width - square.side);
  square.y = between(0, square.y, height - square.side);
  square.rotation = between(-180, square.rotation, 180);
  box.style.left = `${(100 * square.x) / width}%`;
  box.style.top = `${(100 * square.y) / height}%`;
  box.style.width = `${(100 * square.side) / width}%`;
  box.style.height = `${(100 * square.side) / height}%`;
  box.style.transform = `rotate(${square.rotation}deg)`;
  find("#x").max = width - square.side;
  find("#y").max = height - square.side;
  for (const name of SLIDERS) {
    find(`#${name}`).value = square[name];
    find(`#${name}-now`).textContent = say(name === "rotation" ? "fit.js.degrees" : "fit.js.pixels", { value: square[name] });
  }
  find(`#eye-${square.eye}`).checked = true;
}

for (const name of SLIDERS) find(`#${name}`).addEventListener("input", (event) => place({ [name]: Number(event.target.value) }));
for (const eye of ["left", "right"]) find(`#eye-${eye}`).addEventListener("change", () => place({ eye }));

box.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 10 : 2;
  const { x, y, side } = square;
  const moved = {
    ArrowLeft: { x: x - step }, ArrowRight: { x: x + step }, ArrowUp: { y: y - step }, ArrowDown: { y: y + step },
    "+": { side: side + step, x: x - step / 2, y: y - step / 2 }, "-": { side: side - step, x: x + step / 2, y: y + step / 2 },
  }[event.key];
  if (moved === undefined) return;
  event.preventDefault();
  place(moved);
});

box.addEventListener("pointerdown", (event) => {
  const begun = { ...square, left: event.clientX, top: event.clientY };
  const scale = width / sensor.clientWidth;
  const resizes = event.target === corner;
  box.setPointerCapture(event.pointerId);
  box.onpointermove = (moved) => {
    const [right, down] = [(moved.clientX - begun.left) * scale, (moved.clientY - begun.top) * scale];
    place(resizes ? { side: Math.min(begun.side + Math.max(right, down), width - begun.x, height - begun.y) } : { x: begun.x + right, y: begun.y + down });
  };
  box.onpointerup = box.onpointercancel = () => { box.onpointermove = null; };
  event.preventDefault();
  box.focus();
});

// Checks are said once most of the last pictures agree: an eye that rests for a moment is no fault.
const LAST = 20;
const found = [];
let saidNow;
function check(names) {
  found.push(names);
  if (found.length > LAST) found.shift();
  const counts = new Map();
  for (const name of found.flat()) counts.set(name, (counts.get(name) ?? 0) + 1);
  const holding = [...counts].filter(([, count]) => count > 0.8 * found.length).map(([name]) => name);
  const lines = holding.length ? holding.map((name) => say(`fit.js.${name}`)) : [say("fit.js.good")];
  if (found.length < LAST / 2 || lines.join() === saidNow) return;
  saidNow = lines.join();
  find("#checks").replaceChildren(...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
  find("#checks").classList.toggle("good", holding.length === 0);
}

const [frame, event] = [find("#frame").getContext("2d"), find("#event").getContext("2d")];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const drawn = [];
async function watch() {
  let after = -1;
  for (;;) {
    const asked = performance.now();
    try {
      const answer = await fetch(`/api/preview?${new URLSearchParams({ ...square, after })}`);
      if (answer.status === 401) return location.assign("/pair");
      if (answer.status === 200) {
        after = answer.headers.get("X-Number");
        const picture = await createImageBitmap(await answer.blob());
        frame.drawImage(picture, 0, 0, width, height, 0, 0, width, height);
        event.drawImage(picture, 0, height, width, height, 0, 0, width, height);
        drawn.push(asked);
        if (drawn.length > 30) drawn.shift();
        form.dataset.rate = ((1000 * (drawn.length - 1)) / (drawn.at(-1) - drawn[0])).toFixed(1);
      }
      if (answer.ok) check((answer.headers.get("X-Checks") ?? "").split(",").filter(Boolean));
      else check(["no-frames"]);
      if (!answer.ok) await pause(1000);
    } catch {
      await pause(1000);
    }
    await pause(Math.max(0, PAUSE_MS - (performance.now() - asked)));
  }
}

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  complain("");
  try {
    await submit("/api/fit", square);
    location.assign(form.dataset.next);
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    complain(fault);
  }
});
place({});
watch();
