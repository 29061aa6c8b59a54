// What the page holds: the data it was written with, what is chosen, and what follows from both.

const DATA = JSON.parse(document.getElementById("data").textContent);

const KINDS = { f4: Float32Array, f8: Float64Array, u1: Uint8Array };

/** Numbers from base64, as doubles. */
function decode({ kind, data, scale = 1 }) {
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const numbers = new Float64Array(new KINDS[kind](bytes.buffer));
  if (scale !== 1) for (let i = 0; i < numbers.length; i++) numbers[i] /= scale;
  return numbers;
}

const makeNet = (layers) => layers.map((layer, l) => ({
  ...DATA.layers[l], W: decode(layer.weight), b: layer.bias && decode(layer.bias),
}));

const pixels = decode(DATA.images), [HEIGHT, WIDTH] = DATA.shape, SIZE = HEIGHT * WIDTH;
const DIGITS = DATA.labels.map((label, i) => ({ label, x: pixels.subarray(i * SIZE, (i + 1) * SIZE) }));
const LAST = DATA.layers.length - 1;

// Layer l makes a of l + 1: what Python counts from 0, the lesson counts from 1.
const STEPS = [{ kind: "input", phase: "forward" }];
for (let l = 0; l <= LAST; l++) STEPS.push({ kind: "z", l, phase: "forward" }, { kind: "a", l, phase: "forward" });
STEPS.push({ kind: "C", l: LAST, phase: "forward" }, { kind: "g", l: LAST, phase: "backward" });
for (let l = LAST; l >= 0; l--) {
  STEPS.push({ kind: "delta", l, phase: "backward" }, { kind: "W", l, phase: "backward" });
  if (l) STEPS.push({ kind: "back", l: l - 1, phase: "backward" });
}
STEPS.push({ kind: "step", l: LAST, phase: "backward" });
const stepOf = (kind, l) => STEPS.findIndex((s) => s.kind === kind && (l === undefined || s.l === l));

const state = {
  net: makeNet(DATA.snapshots[DATA.current].layers),
  time: DATA.current, // the snapshot
  example: 0,
  step: 0,
  cost: DATA.cost,
  unit: {}, // of a layer, the neuron that was chosen
  at: LAST, // the layer whose neuron is shown
  weight: null, // [layer, to, from]
  by: 0.01,
  rate: DATA.rate,
  scope: "digit",
  undo: [], // {W, b} of every layer, before each step
  history: [],
};

/** Every number that depends on weights and cost: computed when it is first asked for. */
let passes = [];
function changed() { passes = []; }
function passOf(i) { return (passes[i] ??= pass(state.net, state.cost, DIGITS[i].x, DIGITS[i].label)); }
const current = () => passOf(state.example);
const everyPass = () => DIGITS.map((_, i) => passOf(i));
const meanCost = () => sum(everyPass().map((p) => p.C)) / DIGITS.length;
const guess = (p) => p.a[LAST + 1].reduce((best, v, j, a) => (v > a[best] ? j : best), 0);
const isRight = (i) => guess(passOf(i)) === DIGITS[i].label;

const largest = (values) => values.reduce((best, v, j) => (Math.abs(v) > Math.abs(values[best]) ? j : best), 0);

/** The neuron of a layer that is shown: the chosen one, or the one that matters most. */
const unitOf = (l) => state.unit[l] ?? largest(current().delta[l]);
/** The weight that is shown: the chosen one, or the steepest into the neuron that is shown. */
function weightShown() {
  if (state.weight) return state.weight;
  const l = state.at, j = unitOf(l);
  return [l, j, largest(current().a[l])];
}

const weightAt = ([l, j, k]) => state.net[l].W[j * state.net[l].from + k];

/** The costs that make sense of such outputs: the one trained with, and what the lesson compares. */
function costKinds() {
  const out = DATA.layers[LAST].act.name, own = DATA.cost;
  const kinds = out === "sigmoid" ? ["squared_error", "binary"]
    : out === "softmax" ? ["squared_error", "binary"]
      : out === "identity" || out === "log_softmax" ? ["cross_entropy", "squared_of_softmax"] : ["squared_error", "cross_entropy"];
  return kinds.includes(own) ? kinds : [own, ...kinds];
}
// In the menu and in links, what people call it.
const costName = (kind) => (kind === "binary" && DATA.cost !== "cross_entropy" ? "cross_entropy"
  : kind === "squared_of_softmax" && !costKinds().includes("squared_error") ? "squared_error" : kind);
const costKind = (name) => costKinds().find((kind) => costName(kind) === name);

function choose(example) { state.example = example; }
function chooseNeuron(l, j) { state.unit[l] = j; state.at = l; }
function chooseWeight(l, j, k) { state.weight = [l, j, k]; chooseNeuron(l, j); }

/** Go to a step, and to the neuron that it speaks of. */
function go(step) {
  state.step = Math.max(0, Math.min(STEPS.length - 1, step));
  const { l, kind } = STEPS[state.step];
  if (l !== undefined && kind !== "step") {
    if (state.weight && state.weight[0] !== l) state.weight = null;
    state.at = l;
  }
}

function stepDown() {
  const chosen = state.scope === "all" ? everyPass() : [current()];
  const before = state.net.map(({ W, b }) => ({ W: W.slice(), b: b && b.slice() }));
  state.undo.push({ params: before, digit: current().C, mean: meanCost() });
  if (state.undo.length > 20) state.undo.shift();
  descend(state.net, gradients(state.net, chosen), state.rate);
  changed();
}

function takeBack() {
  const before = state.undo.pop();
  if (!before) return;
  before.params.forEach((params, l) => Object.assign(state.net[l], params));
  changed();
}

function goToTime(t) {
  state.time = t;
  state.net = makeNet(DATA.snapshots[t].layers);
  state.undo = [];
  changed();
}

// ---------------------------------------------------------------- links: #example=7&weight=0:3:407

const whole = (text, below) => (/^\d+$/.test(text ?? "") && Number(text) < below ? Number(text) : null);

function parseWeight(text) {
  const parts = (text ?? "").trim().split(/[\s:,]+/);
  if (parts.length !== 3) return null;
  const l = whole(parts[0], LAST + 1);
  if (l === null) return null;
  const j = whole(parts[1], state.net[l].to), k = whole(parts[2], state.net[l].from);
  return j === null || k === null ? null : [l, j, k];
}

function open(fragment) {
  const asked = new URLSearchParams(fragment.replace(/^#/, ""));
  const example = whole(asked.get("example"), DIGITS.length);
  if (example !== null) state.example = example;
  const kind = costKind(asked.get("cost"));
  if (kind && kind !== state.cost) { state.cost = kind; changed(); }
  const time = whole(asked.get("time"), DATA.snapshots.length);
  if (time !== null && time !== state.time) goToTime(time);
  const step = whole(asked.get("step"), STEPS.length);
  if (step !== null) go(step);
  const [l, j] = (asked.get("neuron") ?? "").split(":").map(Number);
  if (state.net[l] && j >= 0 && j < state.net[l].to) chooseNeuron(l, j);
  const weight = parseWeight(asked.get("weight"));
  if (weight) {
    chooseWeight(...weight);
    if (step === null) state.step = stepOf("W", weight[0]);
  }
  return [...asked.keys()].length > 0;
}

function link() {
  const parts = [`example=${state.example}`];
  if (state.weight) parts.push(`weight=${state.weight.join(":")}`);
  else if (state.at in state.unit) parts.push(`neuron=${state.at}:${state.unit[state.at]}`);
  parts.push(`step=${state.step}`);
  if (state.cost !== DATA.cost) parts.push(`cost=${costName(state.cost)}`);
  if (state.time !== DATA.current) parts.push(`time=${state.time}`);
  return `#${parts.join("&")}`;
}
