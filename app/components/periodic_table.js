// One button for each element; a click goes from free to wanted to unwanted and back.
const NEXT = { free: "wanted", wanted: "unwanted", unwanted: "free" };
const SAYS = { free: "", wanted: ", wanted", unwanted: ", unwanted" };

// Row and column of an atomic number; lanthanides and actinides lie below.
function place(z) {
  if (z === 1) return [1, 1];
  if (z === 2) return [1, 18];
  for (const [first, row] of [[3, 2], [11, 3]]) {
    if (z >= first && z < first + 8) return [row, z - first < 2 ? z - first + 1 : z - first + 11];
  }
  if (z >= 57 && z <= 71) return [8, z - 57 + 3];
  if (z >= 89) return [9, z - 89 + 3];
  for (const [first, row, gap] of [[19, 4, 0], [37, 5, 0], [55, 6, 14], [87, 7, 14]]) {
    if (z >= first && z <= first + 17 + gap) return [row, z - first < 2 ? z - first + 1 : z - first + 1 - gap];
  }
  return [9, 18];
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const box = parentElement.querySelector(".table");
  box.setAttribute("aria-label", "Periodic table: click once for wanted, twice for unwanted");
  const present = new Set(data.present);
  const key = data.present.join();
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  const state = {};
  for (const kind of ["wanted", "unwanted"]) for (const s of data.start[kind] ?? []) state[s] = kind;
  const buttons = data.symbols.map((symbol, index) => {
    const button = document.createElement("button");
    const [row, column] = place(index + 1);
    button.type = "button";
    button.textContent = symbol;
    button.style.gridRow = row;
    button.style.gridColumn = column;
    button.disabled = !present.has(symbol);
    const show = () => {
      button.dataset.state = state[symbol] ?? "free";
      button.setAttribute("aria-label", symbol + SAYS[button.dataset.state]);
    };
    button.onclick = () => {
      state[symbol] = NEXT[state[symbol] ?? "free"];
      show();
      const of = (kind) => data.symbols.filter((s) => state[s] === kind);
      setStateValue("chosen", { wanted: of("wanted"), unwanted: of("unwanted") });
    };
    show();
    return button;
  });
  box.replaceChildren(...buttons);
}
