// Plays pairs of pictures side by side; they are in this page's memory only.
import { find, say, seconds } from "./common.js";

const HEAD_BYTES = 8;

/** A player on the elements of ``parts/replay.html.j2``. */
export class Replay {
  constructor() {
    this.place = find(".place");
    this.play = find(".play");
    this.canvases = [find(".frames").getContext("2d"), find(".events").getContext("2d")];
    this.times = [];
    this.place.addEventListener("input", () => { this.stop(); this.show(Number(this.place.value)); });
    this.play.addEventListener("click", () => (this.playing ? this.stop() : this.start()));
  }

  /**
   * Load from an address; ``begins`` is the second that the first picture is at. False when there is nothing.
   * What is being loaded already is given up, so that it does not come later and take the place of this.
   */
  async load(address, begins = 0) {
    this.stop();
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    let content;
    try {
      const answer = await fetch(address, { signal });
      if (!answer.ok) return false;
      content = await answer.arrayBuffer();
    } catch (fault) {
      if (signal.aborted) return true;
      throw fault;
    }
    const [count, side] = new Uint32Array(content, 0, 2);
    if (count === 0) return false;
    this.begins = begins;
    this.times = new Float32Array(content, HEAD_BYTES, count);
    this.side = side;
    const bytes = new Uint8Array(content, HEAD_BYTES + 4 * count);
    this.pictures = [bytes.subarray(0, count * side * side), bytes.subarray(count * side * side)];
    this.place.max = count - 1;
    this.show(0);
    return true;
  }

  show(number) {
    this.number = number;
    const size = this.side * this.side;
    this.pictures.forEach((bytes, which) => {
      const image = new ImageData(this.side, this.side);
      for (let pixel = 0; pixel < size; pixel += 1) {
        const grey = bytes[number * size + pixel];
        image.data.set([grey, grey, grey, 255], 4 * pixel);
      }
      this.canvases[which].putImageData(image, 0, 0);
    });
    this.place.value = number;
    const at = seconds(this.begins + this.times[number]);
    find(".at").textContent = at;
    this.place.setAttribute("aria-valuetext", at);
  }

  start() {
    if (this.times.length === 0) return;
    if (this.number >= this.times.length - 1) this.show(0);
    this.playing = true;
    const begun = performance.now() - 1000 * this.times[this.number];
    const step = () => {
      if (!this.playing) return;
      const passed = (performance.now() - begun) / 1000;
      let next = this.number;
      while (next + 1 < this.times.length && this.times[next + 1] <= passed) next += 1;
      if (next !== this.number) this.show(next);
      if (next === this.times.length - 1) this.stop();
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
    this.label();
  }

  stop() {
    this.playing = false;
    this.label();
  }

  label() {
    this.play.textContent = say(this.playing ? "common.pause" : "common.play");
  }
}
