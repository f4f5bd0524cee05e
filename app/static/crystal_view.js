// The crystal viewer, and with more than one frame the trajectory player: one Streamlit component.
// Its data is described in app/components/crystal_viewer.py.

import { Chart, drawStrip } from "./charts.js";
import { Scene3D, hasWebGL, loadLibrary } from "./scene3d.js";

const FPS = 12;
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const views = new WeakMap();

export function draw(component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".crystal");
  let view = views.get(root);
  if (!view) {
    view = new View(root);
    views.set(root, view);
  }
  view.update(data);
  return () => { view.close(); views.delete(root); };
}

class View {
  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    this.frame = 0;
    this.speed = 1;
    this.follow = true;
    this.timer = null;
    this.charts = [];
    this.ready = this.open();
    this.wire();
  }

  async open() {
    try {
      if (!hasWebGL()) throw new Error("This browser offers no WebGL, which the 3D view needs.");
      const $3Dmol = await loadLibrary();
      this.scene = new Scene3D($3Dmol, this.find("canvas"));
      let width = 0;
      this.observer = new ResizeObserver(([entry]) => {
        const now = Math.round(entry.contentRect.width);
        if (now === width) return;
        width = now;
        this.scene.resize();
        this.redrawCharts();
      });
      this.observer.observe(this.root);
    } catch (error) {
      this.root.dataset.state = "failed";
      this.find("message").textContent = error.message;
    }
  }

  async update(data) {
    if (this.data?.sig === data.sig) return;
    this.data = data;
    this.root.classList.toggle("player", Boolean(data.series.length || data.live));
    this.find("stage").style.height = `${data.height}px`;
    this.find("canvas").setAttribute("aria-label", data.label);
    await this.ready;
    if (!this.scene || this.data !== data) return;  // a later update is on its way
    const fresh = this.view !== data.view;
    this.view = data.view;
    if (fresh) {
      this.stop();
      this.follow = true;
      this.frame = data.frames.length - 1;
      this.scene.hidden.clear();
      this.scene.cellKey = "";
    } else if (this.follow) this.frame = data.frames.length - 1;
    this.frame = Math.min(this.frame, data.frames.length - 1);
    this.legend();
    this.redrawCharts();
    this.show(this.frame);
    if (fresh) this.scene.fit(data.frames[this.frame], data.elements);
    this.root.dataset.sig = data.sig;
    this.root.dataset.frames = data.frames.length;
    this.root.dataset.state = "ready";
  }

  show(index) {
    const { frames, elements, captions } = this.data;
    this.frame = Math.min(Math.max(index, 0), frames.length - 1);
    const line = getComputedStyle(this.root).getPropertyValue("--cell-line").trim() || "#7c8a90";
    this.scene.show(frames[this.frame], elements, { line });
    this.find("slider").max = Math.max(frames.length - 1, 1);
    this.find("slider").value = this.frame;
    this.find("slider").setAttribute("aria-valuetext", captions[this.frame] ?? "");
    this.find("caption").textContent = captions[this.frame] ?? "";
    for (const chart of this.charts) chart.mark(this.frame);
    this.markStrip();
    this.legend();
    this.root.dataset.frame = this.frame;
  }

  seek(index) { this.follow = index >= this.data.frames.length - 1; this.show(index); }

  play() {
    if (this.timer) return this.stop();
    if (this.frame >= this.data.frames.length - 1) this.frame = -1;
    this.follow = false;
    const tick = () => {
      if (this.frame >= this.data.frames.length - 1) { this.follow = true; return this.stop(); }
      this.show(this.frame + 1);
      this.timer = setTimeout(tick, 1000 / (FPS * this.speed));
    };
    this.root.dataset.playing = "true";
    this.find("play").setAttribute("aria-label", "Pause");
    this.timer = setTimeout(tick, 0);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    delete this.root.dataset.playing;
    this.find("play").setAttribute("aria-label", "Play");
  }

  setSpeed(speed) { this.speed = speed; this.find("speed").value = String(speed); }

  redrawCharts() {
    if (!this.data) return;
    const { series, total, frames, elements, strip } = this.data;
    const box = this.find("charts");
    while (this.charts.length > series.length) this.charts.pop().box.remove();
    series.forEach((one, i) => {
      this.charts[i] ??= new Chart(box, one, (k) => this.seek(k));
      this.charts[i].draw(one, total);
      this.charts[i].mark(this.frame);
    });
    this.find("strip").hidden = !strip;
    if (strip) drawStrip(this.find("strip-canvas"), frames, elements, total);
  }

  markStrip() {
    const total = Math.max(this.data.total, 2);
    this.find("strip-rule").style.left = `${((this.frame + 0.5) / total) * 100}%`;
  }

  // The elements of this frame: in a run they change on the way.
  legend() {
    const box = this.find("legend");
    const here = new Set(this.data.frames[this.frame].n.map(String));
    const wanted = Object.entries(this.data.elements).filter(([z]) => here.has(z));
    const key = `${wanted.map(([, e]) => e[0])};${[...this.scene.hidden]}`;
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...wanted.map(([, [symbol, color]]) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.innerHTML = `<i></i><span></span>`;
      chip.querySelector("i").style.background = color;
      chip.querySelector("span").textContent = symbol;
      chip.setAttribute("aria-pressed", String(!this.scene.hidden.has(symbol)));
      chip.title = `Show or hide ${symbol}`;
      chip.onclick = () => {
        if (!this.scene.hidden.delete(symbol)) this.scene.hidden.add(symbol);
        this.show(this.frame);
      };
      return chip;
    }));
  }

  toggle(name) {
    const button = this.find(name);
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    if (name === "spin") return this.scene.spin(on);
    this.scene.options[name] = on;
    this.show(this.frame);
  }

  wire() {
    for (const name of ["bonds", "images", "cell", "spin"]) this.find(name).onclick = () => this.toggle(name);
    this.find("reset").onclick = () => this.scene.fit(this.data.frames[this.frame], this.data.elements);
    this.find("full").onclick = () => this.fullscreen();
    this.find("picture").onclick = () => this.picture();
    this.find("play").onclick = () => this.play();
    this.find("back").onclick = () => { this.stop(); this.seek(this.frame - 1); };
    this.find("next").onclick = () => { this.stop(); this.seek(this.frame + 1); };
    this.find("slider").oninput = (event) => { this.stop(); this.seek(Number(event.target.value)); };
    this.find("speed").onchange = (event) => this.setSpeed(Number(event.target.value));
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  fullscreen() {
    if (document.fullscreenElement) return document.exitFullscreen();
    this.root.requestFullscreen().catch(() => {});
  }

  picture() {
    const link = document.createElement("a");
    link.href = this.scene.viewer.pngURI();
    link.download = `${this.data.name}.png`;
    link.click();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    const last = this.data.frames.length - 1;
    const faster = SPEEDS[Math.min(SPEEDS.indexOf(this.speed) + 1, SPEEDS.length - 1)];
    const slower = SPEEDS[Math.max(SPEEDS.indexOf(this.speed) - 1, 0)];
    const actions = {
      " ": () => this.play(), "+": () => this.setSpeed(faster), "-": () => this.setSpeed(slower),
      ArrowLeft: () => this.seek(this.frame - 1), ArrowRight: () => this.seek(this.frame + 1),
      Home: () => this.seek(0), End: () => this.seek(last), f: () => this.fullscreen(),
    };
    if (!(event.key in actions) || (last === 0 && event.key !== "f")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") this.stop();
    actions[event.key]();
  }

  close() {
    this.stop();
    this.observer?.disconnect();
    this.scene?.spin(false);
  }
}
