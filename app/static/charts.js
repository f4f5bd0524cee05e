// Small line charts over the frames of a run, with a marker that follows the player.

const SVG = "http://www.w3.org/2000/svg";
const PAD = { left: 46, right: 10, top: 8, bottom: 16 };

function node(tag, attributes, parent) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.appendChild(made);
  return made;
}

export function format(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 10000)) return value.toExponential(1).replace("e", " e");
  return value.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

export class Chart {
  constructor(parent, series, onPick) {
    this.series = series;
    this.box = document.createElement("figure");
    this.box.className = "chart";
    this.box.innerHTML = `<figcaption><span class="name"></span><output></output></figcaption>`;
    this.box.querySelector(".name").textContent = series.name;
    this.box.title = series.help ?? "";
    this.svg = node("svg", { role: "img" }, this.box);
    parent.appendChild(this.box);
    const pick = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const { left, width } = this.svg.getBoundingClientRect();
      const t = (event.clientX - left - PAD.left) / (width - PAD.left - PAD.right);
      onPick(Math.round(Math.min(1, Math.max(0, t)) * (this.total - 1)));
    };
    this.svg.addEventListener("pointerdown", pick);
    this.svg.addEventListener("pointermove", pick);
  }

  // `total` frames are expected in the end, so a running chart fills from left to right.
  draw(series, total) {
    this.series = series;
    this.total = Math.max(total, 2);
    const width = this.svg.clientWidth || 280;
    const height = this.svg.clientHeight || 84;
    this.height = height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", `${series.name} over the run`);
    this.svg.replaceChildren();
    const values = series.values.filter((v) => v !== null && (!series.log || v > 0));
    if (!values.length) return;
    this.scale(values, series.log, width, height);
    for (const tick of this.ticks) {
      const y = this.y(tick);
      node("line", { x1: PAD.left, x2: width - PAD.right, y1: y, y2: y, class: "grid" }, this.svg);
      node("text", { x: PAD.left - 6, y: y + 3.5, class: "tick" }, this.svg).textContent = format(tick);
    }
    if (series.guide && series.guide > this.low && series.guide < this.high) {
      const y = this.y(series.guide);
      node("line", { x1: PAD.left, x2: width - PAD.right, y1: y, y2: y, class: "guide" }, this.svg);
    }
    const points = series.values.map((v, i) =>
      (v === null || (series.log && v <= 0) ? null : `${this.x(i).toFixed(1)},${this.y(v).toFixed(1)}`));
    node("polyline", { points: points.filter(Boolean).join(" "), class: "line" }, this.svg);
    this.rule = node("line", { y1: PAD.top, y2: height - PAD.bottom, class: "rule" }, this.svg);
    this.dot = node("circle", { r: 4, class: "dot" }, this.svg);
  }

  scale(values, log, width, height) {
    const to = log ? Math.log10 : (v) => v;
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    if (!log) { const room = (high - low) * 0.06; low = low >= 0 ? Math.max(0, low - room) : low - room; high += room; }
    [this.low, this.high] = [low, high];
    const span = to(high) - to(low);
    this.x = (i) => PAD.left + (i / (this.total - 1)) * (width - PAD.left - PAD.right);
    this.y = (v) => height - PAD.bottom - ((to(v) - to(low)) / span) * (height - PAD.top - PAD.bottom);
    this.ticks = log ? decades(low, high) : even(low, high);
  }

  mark(index) {
    const value = this.series.values[index];
    this.box.querySelector("output").textContent = `${format(value)} ${this.series.unit}`.trim();
    if (!this.rule) return;
    const x = this.x(index);
    this.rule.setAttribute("x1", x); this.rule.setAttribute("x2", x);
    const drawn = value !== null && value !== undefined && (!this.series.log || value > 0);
    this.dot.setAttribute("visibility", drawn ? "visible" : "hidden");
    if (drawn) { this.dot.setAttribute("cx", x); this.dot.setAttribute("cy", this.y(value)); }
  }
}

function decades(low, high) {
  const [from, to] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (to - from < 1) return even(low, high).filter((v) => v > low);
  const step = Math.ceil((to - from) / 3);
  const ticks = [];
  for (let k = from; k <= to; k += step) ticks.push(10 ** k);
  return ticks;
}

function even(low, high) {
  const raw = (high - low) / 2.5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= raw);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) ticks.push(Number(v.toPrecision(6)));
  return ticks;
}

// The element of every atom at every frame: one row per atom, one column per frame.
export function drawStrip(canvas, frames, elements, total) {
  const rows = Math.max(...frames.map((f) => f.m.filter((image) => !image).length));
  canvas.width = Math.max(total, 2);
  canvas.height = rows;
  const context = canvas.getContext("2d");
  frames.forEach((frame, column) => {
    let row = 0;
    frame.n.forEach((z, i) => {
      if (frame.m[i]) return;
      context.fillStyle = elements[z][1];
      context.fillRect(column, row, 1, 1);
      row += 1;
    });
  });
}
