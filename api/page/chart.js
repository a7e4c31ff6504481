// A line of the last values, as SVG.

import { el } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 120;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export class Chart {
  #values = [];

  /** Keeps the last `n` values; `title` is told to those who do not see. */
  constructor(title, n) {
    this.n = n;
    this.line = shape("polyline", { class: "line" });
    this.area = shape("polygon", { class: "area" });
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title });
    svg.append(this.area, this.line);
    this.most = el("span", { class: "dim" });
    this.element = el("figure", { class: "chart" }, el("figcaption", {}, title, " ", this.most), svg);
  }

  add(value) {
    this.#values.push(value);
    if (this.#values.length > this.n) this.#values.shift();
    const most = Math.max(1, ...this.#values);
    this.most.textContent = `· most ${most.toFixed(1)}`;
    const step = WIDTH / (this.n - 1);
    const from = WIDTH - step * (this.#values.length - 1);
    const points = this.#values.map((v, i) => `${(from + i * step).toFixed(1)},${(HEIGHT - 4 - (v / most) * (HEIGHT - 10)).toFixed(1)}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", `${from.toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`);
  }
}
