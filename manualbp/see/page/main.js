// Events, and the first drawing.

function draw() {
  drawDigits();
  drawFigure();
  drawFormula();
  drawWeight();
  drawNeuron();
  drawCost();
  drawTime();
}
// The link is written once the page rests: a browser takes long for it, and refuses many at once.
let written = 0;
const REST = 150;
function moved() {
  draw();
  clearTimeout(written);
  written = setTimeout(() => history.replaceState(null, "", link()), REST);
}

// ---------------------------------------------------------------- steps

$("step-forward").addEventListener("click", () => { go(state.step + 1); moved(); });
$("step-back").addEventListener("click", () => { go(state.step - 1); moved(); });
$("chips").addEventListener("click", (event) => {
  const chip = event.target.closest("[data-step]");
  if (chip) { go(Number(chip.dataset.step)); moved(); }
});

const OWN_ARROWS = "input, select, textarea, #digits";
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape" && stop >= 0) { visit(-1); return; }
  if (event.target.closest(OWN_ARROWS)) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) {
    event.preventDefault();
    go(state.step + by);
    moved();
    if (event.target.closest("#chips")) document.querySelector(`[data-step="${state.step}"]`).focus();
  }
});

// ---------------------------------------------------------------- the figure

const spot = (event) => { const box = svg.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
function weightUnder(event) {
  if (event.target.closest("[data-neuron]")) return null;
  return event.target.closest(".grip")?.dataset.weight || nearest(...spot(event));
}

svg.addEventListener("click", (event) => {
  const neuronHit = event.target.closest("[data-neuron]");
  if (neuronHit) { pressNeuron(neuronHit); return; }
  const weight = weightUnder(event);
  if (weight) { chooseWeight(...weight.split(":").map(Number)); moved(); }
});
svg.addEventListener("pointermove", (event) => {
  svg.style.cursor = weightUnder(event) ? "pointer" : "";
});

function pressNeuron(g) {
  const [l, j] = g.dataset.neuron.split(":").map(Number);
  chooseNeuron(l, j);
  state.weight = null;
  moved();
}
svg.addEventListener("keydown", (event) => {
  const g = event.target.closest("[data-neuron]");
  if (!g) return;
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pressNeuron(g); return; }
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const column = [...g.parentNode.querySelectorAll("[data-neuron]")], next = column[column.indexOf(g) + by];
  if (next) { pressNeuron(next); document.querySelector(`[data-neuron="${next.dataset.neuron}"]`).focus(); }
});

// ---------------------------------------------------------------- digits

$("digits").addEventListener("click", (event) => {
  const tile = event.target.closest("[data-example]");
  if (tile) { choose(Number(tile.dataset.example)); moved(); }
});
$("digits").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const all = [...document.querySelectorAll("[data-example]")], next = all[all.indexOf(event.target) + by];
  if (next) { choose(Number(next.dataset.example)); moved(); next.focus(); }
});

// ---------------------------------------------------------------- weight and neuron

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const weight = parseWeight($("address").value), told = $("no-weight");
  told.textContent = weight ? "" : `No such weight. Layer 0 to ${LAST}, the neuron it enters, the one it leaves: 0 3 407.`;
  set($("address"), "aria-invalid", !weight);
  if (weight) { chooseWeight(...weight); state.step = stepOf("W", weight[0]); moved(); }
});
$("nudge").addEventListener("input", () => { state.by = Number($("nudge").value); drawNudge(); });
$("incoming").addEventListener("click", (event) => {
  const button = event.target.closest("[data-from]");
  if (!button) return;
  const from = Number(button.dataset.from);
  chooseWeight(state.at, unitOf(state.at), from);
  moved();
  document.querySelector(`[data-from="${from}"]`)?.focus();
});
for (const id of ["weights-image", "gradient-image"]) {
  $(id).addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * WIDTH), row = Math.floor(((event.clientY - box.top) / box.height) * HEIGHT);
    chooseWeight(0, unitOf(0), Math.max(0, Math.min(SIZE - 1, row * WIDTH + column)));
    moved();
  });
}

// ---------------------------------------------------------------- cost, step, time

$("cost-kind").addEventListener("change", () => { state.cost = costKind($("cost-kind").value); changed(); moved(); });
$("rate").addEventListener("input", () => {
  const rate = $("rate").valueAsNumber;
  set($("rate"), "aria-invalid", !(rate > 0));
  $("descend").disabled = !(rate > 0);
  if (rate > 0) { state.rate = rate; draw(); }
});
for (const id of ["scope-digit", "scope-all"]) {
  $(id).addEventListener("change", () => { state.scope = $(id).value; draw(); });
}
$("descend").addEventListener("click", () => { stepDown(); moved(); });
$("undo").addEventListener("click", () => { takeBack(); moved(); if (!state.undo.length) $("descend").focus(); });
$("time").addEventListener("input", () => { goToTime(Number($("time").value)); moved(); });

// ---------------------------------------------------------------- theme, size, links

$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
  root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  recolour();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
/** Canvases have no style sheet. */
function recolour() {
  readTheme();
  painted = -1;
  tiles.forEach(({ canvas }, i) => paint(canvas, DIGITS[i].x, inked));
  for (const place of [$("pull-up"), $("pull-down")]) place.kept = "";
  draw();
}
new ResizeObserver(([{ contentRect }]) => {
  if (width !== Math.floor(contentRect.width)) { width = Math.floor(contentRect.width); drawFigure(); }
}).observe($("figure"));
window.addEventListener("hashchange", () => { if (location.hash !== link() && open(location.hash)) draw(); });

// ---------------------------------------------------------------- begin

fill($("title"), `Backwards through <span class="widths">${[SIZE, ...DATA.layers.map(({ to }) => to)].join("–")}</span>`);
$("about").textContent = DATA.about;
$("cost-kind").innerHTML = costKinds().map((kind) => `<option value="${costName(kind)}">${COSTS[kind].label}${kind === DATA.cost ? ", as trained" : ""}</option>`).join("");
$("rate").value = state.rate;
$("time").max = DATA.snapshots.length - 1;
$("time-panel").hidden = DATA.snapshots.length < 2;
readTheme();
chips();
makeDigits();
const linked = open(location.hash);
draw();
if (!linked && !seen()) visit(0);

// For tests and the console: the arithmetic, on the numbers of this page.
window.manualbp = { DATA, DIGITS, STEPS, state, pass, forward, costOf, gradients, descend, nudge, makeNet, normal, COSTS, drawDigits, drawFigure, drawFormula, drawWeight, drawNeuron, drawCost, drawTime, draw, changed, go, open, link, current };
