// What is said in words and numbers: the formula of the step, the weight, the neuron, the costs.

// ---------------------------------------------------------------- the step's formula

/** A sum with numbers: its three largest terms, and what the others come to. */
function sumOf(terms, shown = 3) {
  const order = terms.slice().sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  const rest = order.slice(shown), texts = order.slice(0, shown).map(({ text }) => text);
  if (rest.length) texts.push(`<span class="rest">${bracket(sum(rest.map(({ value }) => value)))} of ${rest.length} more</span>`);
  return texts.join(" + ");
}

const gradientWord = { squared_error: "2 (a − y)", binary: "(a − y) / (a (1 − a))" };

/** The gradient of the cost by output j, with numbers. */
function outputGradient(p, j) {
  const a = num(p.a[LAST + 1][j]), y = p.y[j];
  if (state.cost === "squared_error") return `2·(${a} − ${y})`;
  if (state.cost === "mse") return `2·(${a} − ${y}) / ${p.y.length}`;
  if (state.cost === "binary") return `(${a} − ${y}) / (${a}·${num(1 - p.a[LAST + 1][j])})`;
  if (state.cost === "cross_entropy") return `${num(softmax(p.a[LAST + 1])[j])} − ${y}`;
  if (state.cost === "nll") return `−${y}`;
  if (state.cost === "bce_with_logits") return `(${num(expit(p.a[LAST + 1][j]))} − ${y}) / ${p.y.length}`;
  return "p (g − Σ g p)";
}

const FORMULAS = {
  input: (p) => ({
    title: "The pixels", letters: `${aOf(0, "k")} = how much ink pixel k has, 0 to 1`,
    numbers: `${p.a[0].filter((v) => v > 0).length} of ${SIZE} pixels have ink, ${num(sum(p.a[0]))} in all`,
    help: "The digit enters the network as its pixels. Go forward, by the button or the → key.", at: [65, "activations, layer by layer"] }),
  z: (p, l, j) => {
    const { W, b, from } = state.net[l], a = p.a[l];
    const terms = Array.from(a, (v, k) => ({ value: W[j * from + k] * v, text: `${bracket(W[j * from + k])}·${num(v)}` }));
    return { title: `Weighted sums of layer ${l + 1}`, letters: `${zOf(l + 1, j)} = Σ<sub>k</sub> ${wOf(l + 1, `${j},k`)} ${aOf(l, "k")}${b ? ` + ${bOf(l + 1, j)}` : ""}`,
      numbers: `${sumOf(terms)}${b ? ` + ${bracket(b[j])}` : ""} = ${n(p.z[l][j], "z")}`,
      help: "Each neuron adds up the activations before it, each times its weight, and its bias. Lit lines are the products.", at: [105, "the weighted sum z"] };
  },
  a: (p, l, j) => {
    const layer = state.net[l], { formula } = ACTIVATIONS[layer.act.name] ?? MIXING[layer.act.name];
    return { title: `Activations of layer ${l + 1}`, letters: `${aOf(l + 1, j)} = <i>σ</i>(${zOf(l + 1, j)}), <i>σ</i>(z) = ${formula}`,
      numbers: `σ(${num(p.z[l][j])}) = ${n(p.a[l + 1][j])}`,
      help: `${layer.act.label} makes an activation of each sum.`, at: [117, "a = σ(z)"] };
  },
  C: (p) => ({ title: "The cost of this digit", letters: `${C} = Σ<sub>j</sub> ${COSTS[state.cost].term}`,
    numbers: `${sumOf(Array.from(p.terms, (value) => ({ value, text: num(value) })))} = ${n(p.C, "c")}`,
    help: "Each output is compared with what is desired: 1 for the digit's own class, 0 for the others.", at: [435, "the cost as a sum over outputs"] }),
  g: (p, l, j) => ({ title: "Back: how wrong each output is", letters: `${over(C, aOf(l + 1, j))} = ${COSTS[state.cost].gradient}`,
    numbers: `${outputGradient(p, j)} = ${n(p.ga[l + 1][j], "c")}`,
    help: "The backward pass begins at the cost. The arrow beside each output says which way it should move.", at: [247, "∂C/∂a"] }),
  delta: (p, l, j) => deltaFormula(p, l, j),
  W: (p, l, j) => {
    const [, to, k] = state.weight?.[0] === l ? state.weight : [l, j, largest(p.a[l])];
    return { title: `Gradients of the weights into layer ${l + 1}`,
      letters: `${over(C, wOf(l + 1, `${to},${k}`))} = ${deltaOf(l + 1, to)} · ${aOf(l, k)}, &nbsp; ${over(C, bOf(l + 1, to))} = ${deltaOf(l + 1, to)}`,
      numbers: `${bracket(p.delta[l][to])} · ${num(p.a[l][k])} = ${n(p.delta[l][to] * p.a[l][k], "w")}`,
      help: "A weight matters as much as the neuron behind it is active: what fires together wires together. Click a line to ask why.", at: [277, "∂z/∂w is the activation before"] };
  },
  back: (p, l, k) => {
    const next = state.net[l + 1], terms = Array.from(p.delta[l + 1], (d, j) => ({ value: d * next.W[j * next.from + k], text: `${bracket(next.W[j * next.from + k])}·${bracket(d)}` }));
    return { title: `Back to the activations of layer ${l + 1}`, letters: `${over(C, aOf(l + 1, k))} = Σ<sub>j</sub> ${wOf(l + 2, `j,${k}`)} ${deltaOf(l + 2, "j")}`,
      numbers: `${sumOf(terms)} = ${n(p.ga[l + 1][k], "c")}`,
      help: "An activation acts on the cost through every neuron of the next layer. The sum is over these paths: its bars are in the neuron's panel.", at: [512, "the sum over paths"] };
  },
  step: (p) => {
    const grads = gradients(state.net, state.scope === "all" ? everyPass() : [p]);
    const norm = Math.sqrt(sum(grads.map(({ W, b }) => sum(W.map((v) => v * v)) + (b ? sum(b.map((v) => v * v)) : 0))));
    return { title: "The step", letters: `${letter("w", "w")} ← ${letter("w", "w")} − η ${over(C, letter("w", "w"))} for every weight and bias`,
      numbers: `η = ${num(state.rate)}, length of the gradient ${num(norm)}: ${C} falls by about ${n(state.rate * norm * norm, "c")}`,
      help: "All these gradients together are one direction: downhill. Take the step below, and see the cost move.", at: [563, "the gradient, stepping downhill"] };
  },
};

function deltaFormula(p, l, j) {
  const layer = state.net[l], { slopeFormula } = ACTIVATIONS[layer.act.name] ?? MIXING[layer.act.name];
  const title = `δ: back through σ in layer ${l + 1}`, at = [267, "∂a/∂z is the slope of σ"];
  if (mixes(layer)) {
    return { title, letters: `${deltaOf(l + 1)} = ${slopeFormula}, g = ${over(C, aOf(l + 1))}`, numbers: `${deltaOf(l + 1, j)} = ${n(p.delta[l][j], "z")}`, at,
      help: `${layer.act.label} mixes the outputs, so δ of each has a part of every gradient.` };
  }
  const slope = slopeAt(layer, p.z[l][j], p.a[l + 1][j]), wrong = p.ga[l + 1][j];
  if (l === LAST && state.cost === "binary" && layer.act.name === "sigmoid") {
    return { title, at, letters: `${deltaOf(l + 1, j)} = ${over(C, aOf(l + 1, j))} <i>σ</i>′ = (a − y) / <s>a (1 − a)</s> · <s>a (1 − a)</s> = ${aOf(l + 1, j)} − ${yOf(j)}`,
      numbers: `${num(p.a[l + 1][j])} − ${p.y[j]} = ${n(p.delta[l][j], "z")}`,
      help: "σ′ cancels: a wrong output learns at full speed, even where σ is flat. With the squared error it would not." };
  }
  if (layer.act.name === "identity") {
    return { title, at, letters: `${deltaOf(l + 1, j)} = ${over(C, aOf(l + 1, j))}`, numbers: n(wrong, "z"),
      help: state.cost === "cross_entropy" ? "No σ follows here: p − y arrives at z whole, without a factor σ′." : "No σ follows here, so its slope is 1." };
  }
  return { title, at, letters: `${deltaOf(l + 1, j)} = ${over(C, zOf(l + 1, j))} = ${over(C, aOf(l + 1, j))} · ${slopeOf(l + 1, j)}, <i>σ</i>′ = ${slopeFormula}`,
    numbers: `${bracket(wrong)} · ${num(slope)} = ${n(p.delta[l][j], "z")}`,
    help: "Where σ is flat, its slope is near 0, and little of the gradient gets through. That is how it vanishes." };
}

function drawFormula() {
  const { kind, l } = STEPS[state.step], p = current(), said = FORMULAS[kind](p, l, l === undefined ? 0 : unitOf(l));
  fill($("step-title"), `${said.title} <small>step ${state.step} of ${STEPS.length - 1}</small>`);
  fill($("formula"), `<p class="letters">${said.letters}</p><p class="numbers">${said.numbers}</p>`);
  fill($("step-help"), `${said.help} <span class="lesson">In the lesson: ${lesson(...said.at)}</span>`);
  $("step-back").disabled = state.step === 0;
  $("step-forward").disabled = state.step === STEPS.length - 1;
  document.querySelectorAll("[data-step]").forEach((chip) => {
    const i = Number(chip.dataset.step);
    set(chip, "aria-current", i === state.step ? "step" : "false");
    set(chip, "class", i < state.step ? "done" : "");
    set(chip, "tabindex", i === state.step ? 0 : -1);
  });
}

function chips() {
  const name = { input: () => aOf(0), z: (l) => zOf(l + 1), a: (l) => aOf(l + 1), C: () => C, g: (l) => `∂${aOf(l + 1)}`,
    delta: (l) => deltaOf(l + 1), W: (l) => `∂${WOf(l + 1)}`, back: (l) => `∂${aOf(l + 1)}`, step: () => "step" };
  for (const phase of ["forward", "backward"]) {
    $(phase).innerHTML = STEPS.map((s, i) => (s.phase === phase
      ? `<button type="button" data-step="${i}" aria-label="step ${i}: ${s.kind === "input" ? "pixels" : `${{ z: "weighted sums", a: "activations", C: "cost", g: "gradient by outputs", delta: "delta", W: "gradient by weights", back: "gradient by activations", step: "gradient descent" }[s.kind]}${s.kind === "C" || s.kind === "step" ? "" : ` of layer ${s.l + 1}`}`}">${name[s.kind](s.l)}</button>` : "")).join("");
  }
}

// ---------------------------------------------------------------- the weight

function drawWeight() {
  const address = weightShown(), [l, j, k] = address, p = current(), layer = state.net[l], w = weightAt(address);
  const d = p.delta[l][j], ak = p.a[l][k], value = d * ak, wrong = p.ga[l + 1][j], slope = slopeAt(layer, p.z[l][j], p.a[l + 1][j]);
  fill($("weight-name"), `${wOf(l + 1, `${j},${k}`)} = ${n(w, "w")} <small>${l ? `from neuron ${k} of layer ${l}` : `from pixel ${k}, row ${Math.floor(k / WIDTH)}, column ${k % WIDTH}`} to ${l === LAST ? "output" : "neuron"} ${j}</small>`);
  if (document.activeElement !== $("address")) $("address").value = address.join(" ");
  const factor = (html, v, words, kind) => `<div class="factor"><span class="name">${html}</span>${n(v, kind)}<span class="words">${words}</span></div>`;
  const times = '<span class="op" aria-hidden="true">×</span><span class="hidden"> times </span>';
  const factors = mixes(layer) ? [factor(`${deltaOf(l + 1, j)}`, d, "how wrong, through the whole layer", "c")]
    : [factor(over(C, aOf(l + 1, j)), wrong, "how wrong", "c"), factor(slopeOf(l + 1, j), slope, "how responsive", "z")];
  factors.push(factor(aOf(l, k), ak, "how active the input", "a"));
  fill($("explain"), `<div class="factors">${factors.join(times)}</div><div class="product"><span class="op" aria-hidden="true">=</span><span class="hidden"> is </span>${factor(over(C, wOf(l + 1, `${j},${k}`)), value, value > 0 ? "so make it smaller" : value < 0 ? "so make it larger" : "no pull", "w")}</div>`);
  drawTug(address);
  drawNudge();
}

/** The pull of every digit on a weight: the mean is the gradient, the classes fight over it. */
function drawTug([l, j, k]) {
  const all = everyPass(), pulls = all.map((p) => p.delta[l][j] * p.a[l][k]), mean = sum(pulls) / pulls.length, sizes = sum(pulls.map(Math.abs));
  const classes = Array.from({ length: state.net[LAST].to }, () => []);
  pulls.forEach((pull, i) => classes[DIGITS[i].label]?.push(pull));
  const means = classes.map((own) => (own.length ? sum(own) / own.length : 0)), most = Math.max(...means.map(Math.abs), 1e-300);
  fill($("mean"), `mean over ${pulls.length} digits ${over(C, wOf(l + 1, `${j},${k}`))} = ${n(mean, "w")}${sizes ? `: ${percent(1 - Math.abs(sum(pulls)) / sizes)} of their pulls cancel` : ""}`);
  const bars = means.map((v, c) => (classes[c].length ? `<div class="tug${c === DIGITS[state.example].label ? " mine" : ""}"><span>${c}</span><span class="track"><span class="${v > 0 ? "down" : "up"}" style="--size:${((50 * Math.abs(v)) / most).toFixed(1)}%"></span></span><span class="n">${num(-v)}</span></div>` : "")).join("");
  fill($("tug"), `<div class="tug-head" aria-hidden="true"><span></span><span class="track-head"><span>← smaller</span><span>larger →</span></span><span>−gradient</span></div>${bars}`);
  const order = pulls.map((_, i) => i).sort((one, other) => pulls[one] - pulls[other]);
  hardest($("pull-up"), order.filter((i) => pulls[i] < 0).slice(0, MOST_PULLS));
  hardest($("pull-down"), order.filter((i) => pulls[i] > 0).reverse().slice(0, MOST_PULLS));
}

const MOST_PULLS = 4;
/** The same canvases every time, since to make one takes a millisecond. */
function hardest(place, chosen) {
  if (place.kept === String(chosen)) return;
  place.kept = String(chosen);
  if (!place.children.length) {
    for (let i = 0; i < MOST_PULLS; i++) {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: WIDTH, height: HEIGHT });
      canvas.setAttribute("role", "img");
      place.append(canvas);
    }
  }
  [...place.children].forEach((canvas, i) => {
    canvas.hidden = i >= chosen.length;
    if (canvas.hidden) return;
    set(canvas, "aria-label", `a ${DIGITS[chosen[i]].label}`);
    canvas.getContext("2d").drawImage(tiles[chosen[i]].canvas, 0, 0);
  });
}

function drawNudge() {
  const address = weightShown(), [l, j, k] = address, { x, label } = DIGITS[state.example];
  const { predicted, measured } = nudge(state.net, state.cost, x, label, address, state.by);
  fill($("by"), `∂${letter("w", "w")} = ${n(state.by, "w")}`);
  if (document.activeElement !== $("nudge") || Number($("nudge").value) !== state.by) $("nudge").value = state.by;
  for (const [id, v] of [["dz", predicted.z], ["da", predicted.a], ["predicted", predicted.C], ["dz-true", measured.z], ["da-true", measured.a], ["measured", measured.C]]) {
    $(id).textContent = num(v);
    $(id).dataset.value = v;
  }
  fill($("nudge-name"), `${letter("w", "w")} → ${zOf(l + 1, j)} → ${aOf(l + 1, j)} → ${C}`);
}

// ---------------------------------------------------------------- the neuron

function drawNeuron() {
  const l = state.at, j = unitOf(l), p = current(), layer = state.net[l], z = p.z[l][j], a = p.a[l + 1][j];
  fill($("neuron-name"), `${l === LAST ? `Output ${j}` : `Neuron ${j} of layer ${l + 1}`} <small>${zOf(l + 1)} ${num(z)} · ${aOf(l + 1)} ${num(a)} · ${deltaOf(l + 1)} ${num(p.delta[l][j])}</small>`);
  drawCurve(layer, z, a);
  drawPaths(p, l, j);
  drawIncoming(p, l, j);
}

function drawCurve(layer, z, a) {
  if (mixes(layer)) { fill($("curve"), `<p class="note">${layer.act.label} has no curve of one number: every output depends on all z.</p>`); return; }
  const reach = Math.max(6, Math.min(40, Math.abs(z) * 1.15)), w = 300, h = 130, points = [];
  for (let i = 0; i <= 60; i++) points.push([((2 * i) / 60 - 1) * reach, 0]);
  points.forEach((point) => { point[1] = sigma(layer, point[0]); });
  const low = Math.min(...points.map(([, v]) => v), 0), top = Math.max(...points.map(([, v]) => v), 1);
  const X = (v) => ((v / reach + 1) / 2) * (w - 20) + 10, Y = (v) => h - 18 - ((v - low) / (top - low)) * (h - 36);
  const slope = slopeAt(layer, z, a), run = Math.min(reach * 0.35, (0.4 * (top - low)) / (Math.abs(slope) || 1e-9)) || 0;
  fill($("curve"), `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="σ at z = ${num(z)} is ${num(a)}, with slope ${num(slope)}">
    <path class="axis" d="M10 ${Y(0)}H${w - 10}M${X(0)} 8V${h - 12}"/>
    <path class="sigma" d="M${points.map(([x, v]) => `${X(x).toFixed(1)} ${Y(v).toFixed(1)}`).join("L")}"/>
    <path class="drop" d="M${X(z).toFixed(1)} ${Y(0).toFixed(1)}V${Y(a).toFixed(1)}"/>
    <path class="slope" d="M${X(z - run).toFixed(1)} ${Y(a - run * slope).toFixed(1)}L${X(z + run).toFixed(1)} ${Y(a + run * slope).toFixed(1)}"/>
    <circle cx="${X(z).toFixed(1)}" cy="${Y(a).toFixed(1)}" r="4.5"/>
    <text x="12" y="18" class="steep">slope σ′ = ${num(slope)}</text>
    <text x="10" y="${h - 3}" class="note">z = ${num(-reach)}</text><text x="${w - 10}" y="${h - 3}" text-anchor="end" class="note">${num(reach)}</text></svg>`);
}

const MOST_PATHS = 16;
/** The sum over paths as bars that begin where the one above ends. */
function drawPaths(p, l, k) {
  if (l === LAST) {
    fill($("paths"), `<p>An output acts on the cost by itself: ${over(C, aOf(l + 1, k))} = ${COSTS[state.cost].gradient} = ${n(p.ga[l + 1][k], "c")}.</p>`);
    return;
  }
  const next = state.net[l + 1], all = Array.from(p.delta[l + 1], (d, j) => ({ j, w: next.W[j * next.from + k], d, v: next.W[j * next.from + k] * d }));
  const kept = all.slice().sort((x, y) => Math.abs(y.v) - Math.abs(x.v)).slice(0, MOST_PATHS).sort((x, y) => x.j - y.j);
  const rest = all.filter((row) => !kept.includes(row)), total = p.ga[l + 1][k], sizes = sum(all.map(({ v }) => Math.abs(v)));
  if (rest.length) kept.push({ j: `${rest.length} more`, v: sum(rest.map(({ v }) => v)) });
  let low = 0, high = 0, at = 0;
  for (const { v } of kept) { at += v; low = Math.min(low, at); high = Math.max(high, at); }
  const span = high - low || 1, left = (v) => ((100 * (v - low)) / span).toFixed(1);
  at = 0;
  const bars = kept.map(({ j, w, d, v }) => {
    const from = Math.min(at, at + v);
    at += v;
    return `<div class="path" title="${w === undefined ? "" : `w ${num(w)} · δ ${num(d)}`}"><span>${j}</span><span class="track"><span class="zero" style="--at:${left(0)}%"></span><span class="${v < 0 ? "neg" : "pos"} bar" style="--at:${left(from)}%;--size:${((100 * Math.abs(v)) / span).toFixed(1)}%"></span></span><span class="n">${num(v)}</span></div>`;
  }).join("");
  fill($("paths"), `<p>${over(C, aOf(l + 1, k))} = Σ<sub>j</sub> ${wOf(l + 2, `j,${k}`)} · ${slopeOf(l + 2, "j")} · ${over(C, aOf(l + 2, "j"))}, a path through each ${l + 1 === LAST ? "output" : "neuron"} j of the next layer:</p>
    <div class="bars">${bars}<div class="path total"><span>Σ</span><span class="track"><span class="zero" style="--at:${left(0)}%"></span><span class="${total < 0 ? "neg" : "pos"} bar" style="--at:${left(Math.min(0, total))}%;--size:${((100 * Math.abs(total)) / span).toFixed(1)}%"></span></span><span class="n">${num(total)}</span></div></div>
    ${sizes ? `<p class="note">${percent(1 - Math.abs(total) / sizes)} of it cancels.</p>` : ""}`);
}

const MOST_INCOMING = 24;
function drawIncoming(p, l, j) {
  const { W, from } = state.net[l], row = W.subarray(j * from, (j + 1) * from), images = $("images"), list = $("incoming");
  images.hidden = l > 0;
  list.hidden = l === 0;
  if (l === 0) {
    const pull = new Float64Array(from);
    for (const each of everyPass()) for (let k = 0; k < from; k++) pull[k] -= each.delta[0][j] * each.a[0][k];
    paint($("weights-image"), row, twoWay(Math.abs(row[largest(row)])));
    paint($("gradient-image"), pull, twoWay(Math.abs(pull[largest(pull)])));
    return;
  }
  const units = Array.from(row.keys()).sort((x, y) => Math.abs(row[y]) - Math.abs(row[x])).slice(0, MOST_INCOMING).sort((x, y) => x - y);
  const most = Math.abs(row[largest(row)]) || 1, mine = state.weight && state.weight[0] === l && state.weight[1] === j ? state.weight[2] : -1;
  fill(list, `<p class="note">Incoming weights${units.length < from ? `, ${units.length} of ${from}, the largest` : ""}: choose one.</p><div class="weights">${units.map((k) => `<button type="button" data-from="${k}" aria-pressed="${k === mine}" aria-label="weight from ${k}: ${num(row[k])}"><span class="${row[k] < 0 ? "neg" : "pos"}" style="--size:${((46 * Math.abs(row[k])) / most).toFixed(0)}%"></span><small>${k}</small></button>`).join("")}</div>`);
}

// ---------------------------------------------------------------- costs, the step, time, digits

function drawCost() {
  const p = current(), layer = state.net[LAST], cost = $("cost");
  cost.textContent = num(p.C);
  cost.dataset.value = p.C;
  const mean = meanCost();
  $("mean-cost").textContent = num(mean);
  $("mean-cost").dataset.value = mean;
  $("right").textContent = `${DIGITS.filter((_, i) => isRight(i)).length} of ${DIGITS.length}`;
  fill($("cost-formula"), `${C} = Σ<sub>j</sub> ${COSTS[state.cost].term}`);
  const cancels = state.cost === "binary" && layer.act.name === "sigmoid" ? `δ at the outputs is <b>a − y</b>: σ′ has cancelled.`
    : mixes(layer) || layer.act.name === "identity" ? `δ at the outputs is ${COSTS[state.cost].gradient}.`
      : `δ at the outputs is ${COSTS[state.cost].gradient} · <b>σ′(z)</b>.`;
  fill($("cancels"), cancels);
  $("cost-kind").value = costName(state.cost);
  const last = state.undo[state.undo.length - 1], undo = $("undo");
  undo.disabled = !last;
  fill($("moved"), last ? `This digit ${num(last.digit)} → ${n(p.C, "c")}, the mean ${num(last.mean)} → ${n(mean, "c")}; ${state.undo.length} step${state.undo.length > 1 ? "s" : ""} taken.` : "No step taken yet.");
}

function drawTime() {
  const { title } = DATA.snapshots[state.time];
  $("time").value = state.time;
  set($("time"), "aria-valuetext", title);
  $("time-name").textContent = state.undo.length ? `${title}, and ${state.undo.length} of your steps` : title;
}

let tiles = [];
function makeDigits() {
  const groups = new Map();
  DIGITS.forEach((digit, i) => {
    if (!groups.has(digit.label)) groups.set(digit.label, []);
    const button = document.createElement("button"), canvas = document.createElement("canvas"), mark = document.createElement("span");
    button.type = "button";
    button.dataset.example = i;
    mark.className = "mark";
    paint(canvas, digit.x, inked);
    button.append(canvas, mark);
    groups.get(digit.label).push(i);
    tiles[i] = { button, canvas, mark };
  });
  for (const label of [...groups.keys()].sort((x, y) => x - y)) {
    const group = document.createElement("div");
    group.className = "class";
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `digits ${label}`);
    group.innerHTML = `<span class="name" aria-hidden="true">${label}</span>`;
    group.members = groups.get(label);
    $("digits").append(group);
  }
}

function drawDigits() {
  for (const group of $("digits").children) {
    const order = group.members.slice().sort((x, y) => passOf(y).C - passOf(x).C), key = String(order);
    if (group.kept !== key) { group.kept = key; group.append(...order.map((i) => tiles[i].button)); }
  }
  tiles.forEach(({ button, mark }, i) => {
    const right = isRight(i), said = guess(passOf(i));
    set(button, "aria-pressed", i === state.example);
    set(button, "tabindex", i === state.example ? 0 : -1);
    set(button, "class", right ? "" : "wrong");
    set(button, "aria-label", `a ${DIGITS[i].label}, read as ${said}: ${right ? "right" : "wrong"}, cost ${num(passOf(i).C)}`);
    const text = right ? "" : `✗${said}`;
    if (mark.textContent !== text) mark.textContent = text;
  });
}
