// One crystal in 3D: atoms, bonds, periodic images and the unit cell, drawn by 3Dmol.
// Images and bonds come from Python (app/services/scene.py); nothing is guessed here.

const LIBRARY = new URL("app/static/3Dmol-min.js", document.baseURI).href;
const EDGES = [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]];
const AXES = [["a", "#c2362b", 1], ["b", "#2e7d32", 2], ["c", "#2457a6", 4]];
let library = null;

// 3Dmol is loaded once per page; a server that answers with something else must not pass silently.
export function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    if (window.$3Dmol) return resolve(window.$3Dmol);
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = () => (window.$3Dmol ? resolve(window.$3Dmol)
      : reject(new Error("The 3D library did not load: static serving seems to be off.")));
    script.onerror = () => reject(new Error("The 3D library could not be fetched from this server."));
    document.head.appendChild(script);
  });
  return library;
}

export function hasWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function corners(cell) {
  const points = [];
  for (let k = 0; k < 8; k++) {
    points.push([0, 1, 2].map((i) =>
      (k & 1) * cell[i] + ((k >> 1) & 1) * cell[3 + i] + ((k >> 2) & 1) * cell[6 + i]));
  }
  return points;
}

const xyz = (p) => ({ x: p[0], y: p[1], z: p[2] });
const between = (p, q, t) => p.map((v, i) => v + t * (q[i] - v));

export class Scene3D {
  constructor($3Dmol, host) {
    this.viewer = $3Dmol.createViewer(host, { backgroundAlpha: 0, orthographic: true, antialias: true });
    this.shapes = [];
    this.cellKey = "";
    this.hidden = new Set();
    this.options = { bonds: true, images: true, cell: true };
  }

  show(frame, elements, palette) {
    this.viewer.removeAllModels();
    this.viewer.addModel().addAtoms(this.atoms(frame, elements));
    for (const [symbol, color, radius] of Object.values(elements)) {
      const style = { sphere: { color, radius } };
      if (this.options.bonds) style.stick = { color, radius: 0.09 };
      this.viewer.setStyle({ elem: symbol }, this.hidden.has(symbol) ? {} : style);
    }
    this.drawCell(frame.c, palette);
    if (this.visible()) this.viewer.render();
  }

  atoms(frame, elements) {
    const keep = frame.n.map((_, i) => this.options.images || !frame.m[i]);
    const serial = [];
    const atoms = [];
    frame.n.forEach((z, i) => {
      if (!keep[i]) return;
      serial[i] = atoms.length;
      atoms.push({ elem: elements[z][0], ...xyz(frame.x.slice(3 * i, 3 * i + 3)),
        bonds: [], bondOrder: [], serial: atoms.length, properties: { atom: i } });
    });
    for (let k = 0; k < frame.b.length; k += 2) {
      const [i, j] = [serial[frame.b[k]], serial[frame.b[k + 1]]];
      if (i === undefined || j === undefined) continue;
      if (this.hidden.has(atoms[i].elem) || this.hidden.has(atoms[j].elem)) continue;
      atoms[i].bonds.push(j); atoms[i].bondOrder.push(1);
      atoms[j].bonds.push(i); atoms[j].bondOrder.push(1);
    }
    return atoms;
  }

  drawCell(cell, palette) {
    const key = cell.join() + this.options.cell + palette.line;
    if (key === this.cellKey) return;
    this.cellKey = key;
    this.viewer.removeAllShapes();
    this.viewer.removeAllLabels();
    if (!this.options.cell) return;
    const p = corners(cell);
    for (const [i, j] of EDGES) {
      const axis = i === 0 ? AXES.find((a) => a[2] === j) : null;
      this.viewer.addCylinder({ start: xyz(p[i]), end: xyz(p[j]), radius: axis ? 0.035 : 0.022,
        color: axis ? axis[1] : palette.line, fromCap: 1, toCap: 1 });
    }
    for (const [name, color, j] of AXES) {
      const beyond = 1 + 0.95 / Math.hypot(...p[j].map((v, i) => v - p[0][i]));
      this.viewer.addLabel(name, { position: xyz(between(p[0], p[j], beyond)), fontColor: color,
        backgroundOpacity: 0, fontSize: 15, font: "serif", bold: true, alignment: "center",
        screenOffset: { x: 0, y: 0 }, inFront: true });
    }
  }

  // c points up, a little turn shows all three axes, and cell and atoms fill the view.
  fit(frame, elements) {
    if (!this.visible()) { this.unfitted = [frame, elements]; return; }
    this.unfitted = null;
    const points = corners(frame.c).map((p) => ({ ...xyz(p), r: 0.5 }));
    frame.n.forEach((z, i) => points.push({ ...xyz(frame.x.slice(3 * i, 3 * i + 3)), r: elements[z][2] }));
    this.viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
    this.viewer.zoomTo();
    this.viewer.rotate(-90, "vx");
    this.viewer.rotate(-28, "vy");
    this.viewer.rotate(15, "vx");
    this.fill(points);
    this.viewer.render();
  }

  // Centre and zoom so that the points, as they are seen now, fill the canvas. The projection is
  // orthographic, so it is a linear map, known from where the three unit vectors go.
  fill(points) {
    this.viewer.render();
    const unit = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]].map(xyz);
    const [origin, ...axes] = this.viewer.modelToScreen(unit);
    const rows = ["x", "y"].map((k) => axes.map((a) => a[k] - origin[k]));
    const scale = Math.hypot(...rows[0]);  // pixels per Å
    const seen = this.viewer.modelToScreen(points.map(({ x, y, z }) => ({ x, y, z })));
    const spans = ["x", "y"].map((k) => [
      Math.min(...seen.map((s, i) => s[k] - points[i].r * scale)),
      Math.max(...seen.map((s, i) => s[k] + points[i].r * scale))]);
    const box = this.viewer.getCanvas().getBoundingClientRect();
    const middle = [box.left + window.scrollX + box.width / 2, box.top + window.scrollY + box.height / 2];
    const off = spans.map(([low, high], k) => (low + high) / 2 - middle[k]);
    const view = this.viewer.getView();
    for (let i = 0; i < 3; i++) view[i] -= (rows[0][i] * off[0] + rows[1][i] * off[1]) / scale ** 2;
    this.viewer.setView(view);
    const [width, height] = spans.map(([low, high]) => high - low);
    this.viewer.zoom(Math.min((0.88 * box.width) / width, (0.88 * box.height) / height));
  }

  spin(on) { this.viewer.spin(on ? "vy" : false, 0.6); }

  resize() {
    this.viewer.resize();
    if (!this.visible()) return;
    this.viewer.render();
    if (this.unfitted) this.fit(...this.unfitted);
  }

  visible() { const { width, height } = this.viewer.getCanvas(); return width > 0 && height > 0; }
}
