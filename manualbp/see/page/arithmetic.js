// The network's arithmetic in double precision: values, gradients, costs, a nudge, a step.
// z = W a + b,  a = σ(z),  C;  δ = ∂C/∂a ⊙ σ′(z),  ∂C/∂W = δ aᵀ,  ∂C/∂b = δ,  ∂C/∂a = Wᵀ δ

const expit = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));
const log1pexp = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
const sum = (xs) => { let s = 0; for (let i = 0; i < xs.length; i++) s += xs[i]; return s; };

/** Φ(z), the normal distribution function: a series near 0, a continued fraction far from it. */
function normal(z) {
  const x = Math.abs(z);
  if (x < 3) {
    let term = x, total = x;
    for (let n = 1; term > 1e-17 * total; n++) { term *= (x * x) / (2 * n + 1); total += term; }
    const half = (total * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
    return z < 0 ? 0.5 - half : 0.5 + half;
  }
  let fraction = x;
  for (let n = 60; n > 0; n--) fraction = x + n / fraction;
  const tail = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI) / fraction;
  return z < 0 ? tail : 1 - tail;
}

function softmax(z) {
  const top = Math.max(...z), e = Float64Array.from(z, (v) => Math.exp(v - top)), s = sum(e);
  return e.map((v) => v / s);
}

const GELU = Math.sqrt(2 / Math.PI);
const bend = (z) => Math.tanh(GELU * (z + 0.044715 * z ** 3));

// σ of one number, and its slope σ′ from z and a; o: the activation's options.
const ACTIVATIONS = {
  identity: { value: (z) => z, slope: () => 1, formula: "z", slopeFormula: "1" },
  sigmoid: { value: expit, slope: (z, a) => a * (1 - a),
    formula: "1 / (1 + e^-z)", slopeFormula: "a (1 − a)" },
  tanh: { value: Math.tanh, slope: (z, a) => 1 - a * a, formula: "tanh z", slopeFormula: "1 − a²" },
  relu: { value: (z) => Math.max(z, 0), slope: (z) => (z > 0 ? 1 : 0),
    formula: "max(0, z)", slopeFormula: "1 where z > 0, else 0" },
  leaky_relu: { value: (z, o) => (z > 0 ? z : o.slope * z), slope: (z, a, o) => (z > 0 ? 1 : o.slope),
    formula: "z where z > 0, else slope · z", slopeFormula: "1 where z > 0, else the small slope" },
  elu: { value: (z, o) => (z > 0 ? z : o.alpha * Math.expm1(z)),
    slope: (z, a, o) => (z > 0 ? 1 : o.alpha * Math.exp(z)),
    formula: "z where z > 0, else α (e^z − 1)", slopeFormula: "1 where z > 0, else α e^z" },
  gelu: { value: (z, o) => (o.tanh ? 0.5 * z * (1 + bend(z)) : z * normal(z)),
    slope: (z, a, o) => (o.tanh
      ? 0.5 * (1 + bend(z)) + 0.5 * z * (1 - bend(z) ** 2) * GELU * (1 + 0.134145 * z * z)
      : normal(z) + (z * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI)),
    formula: "z Φ(z)", slopeFormula: "Φ(z) + z φ(z)" },
  silu: { value: (z) => z * expit(z), slope: (z) => expit(z) * (1 + z * (1 - expit(z))),
    formula: "z s, s = 1 / (1 + e^-z)", slopeFormula: "s (1 + z (1 − s))" },
  softplus: { value: (z, o) => (o.beta * z > o.threshold ? z : log1pexp(o.beta * z) / o.beta),
    slope: (z, a, o) => (o.beta * z > o.threshold ? 1 : expit(o.beta * z)),
    formula: "ln(1 + e^z)", slopeFormula: "1 / (1 + e^-z)" },
};

// Those that mix a layer: δ from g = ∂C/∂a, all of it at once.
const MIXING = {
  softmax: { value: softmax, formula: "e^z / Σ e^z", slopeFormula: "a ⊙ (g − Σ g a)",
    delta: (g, z, a) => { const s = sum(a.map((v, i) => v * g[i])); return a.map((v, i) => v * (g[i] - s)); } },
  log_softmax: { value: (z) => { const top = Math.max(...z);
    const l = top + Math.log(sum(z.map((v) => Math.exp(v - top)))); return z.map((v) => v - l); },
    formula: "z − ln Σ e^z", slopeFormula: "g − e^a Σ g",
    delta: (g, z, a) => { const s = sum(g); return g.map((v, i) => v - Math.exp(a[i]) * s); } },
};

const mixes = (layer) => layer.act.name in MIXING;
const slopeAt = (layer, z, a) => (mixes(layer) ? 1 : ACTIVATIONS[layer.act.name].slope(z, a, layer.act));
const sigma = (layer, z) => ACTIVATIONS[layer.act.name].value(z, layer.act);

// Costs of one example: the outputs a and the desired y. `terms` add up to the cost.
const COSTS = {
  squared_error: { label: "squared error", terms: (a, y) => a.map((v, j) => (v - y[j]) ** 2),
    grad: (a, y) => a.map((v, j) => 2 * (v - y[j])), term: "(a − y)²", gradient: "2 (a − y)" },
  mse: { label: "mean squared error", terms: (a, y) => a.map((v, j) => (v - y[j]) ** 2 / a.length),
    grad: (a, y) => a.map((v, j) => (2 * (v - y[j])) / a.length), term: "(a − y)² / n", gradient: "2 (a − y) / n" },
  // Of each output alone, as for sigmoids: its gradient has σ′ below the line.
  binary: { label: "cross-entropy",
    terms: (a, y) => a.map((v, j) => (y[j] ? -Math.log(v) : -Math.log1p(-v))),
    grad: (a, y) => a.map((v, j) => (v - y[j]) / (v * (1 - v))),
    term: "−ln of what is right", gradient: "(a − y) / (a (1 − a))" },
  cross_entropy: { label: "cross-entropy", terms: (a, y) => {
      const top = Math.max(...a), l = top + Math.log(sum(a.map((v) => Math.exp(v - top))));
      return a.map((v, j) => (y[j] ? l - v : 0)); },
    grad: (a, y) => softmax(a).map((p, j) => p - y[j]), term: "−ln p, p = softmax(a)", gradient: "p − y" },
  squared_of_softmax: { label: "squared error of p", terms: (a, y) => softmax(a).map((p, j) => (p - y[j]) ** 2),
    grad: (a, y) => { const p = softmax(a), g = p.map((v, j) => 2 * (v - y[j]));
      return MIXING.softmax.delta(g, a, p); },
    term: "(p − y)², p = softmax(a)", gradient: "p ⊙ (g − Σ g p), g = 2 (p − y)" },
  nll: { label: "negative log-likelihood", terms: (a, y) => a.map((v, j) => (y[j] ? -v : 0)),
    grad: (a, y) => a.map((v, j) => (y[j] ? -1 : 0)), term: "−a of what is right", gradient: "−y" },
  bce_with_logits: { label: "binary cross-entropy",
    terms: (a, y) => a.map((v, j) => (log1pexp(v) - y[j] * v) / a.length),
    grad: (a, y) => a.map((v, j) => (expit(v) - y[j]) / a.length),
    term: "−ln of what is right / n, p = 1 / (1 + e^-a)", gradient: "(p − y) / n" },
};

const desired = (label, n) => Float64Array.from({ length: n }, (_, j) => (j === label ? 1 : 0));

/** One layer's weighted sums. */
function weightedSum(layer, a) {
  const { W, b, from, to } = layer, z = new Float64Array(to);
  for (let j = 0, at = 0; j < to; j++) {
    let s = b ? b[j] : 0;
    for (let k = 0; k < from; k++, at++) s += W[at] * a[k];
    z[j] = s;
  }
  return z;
}

const activate = (layer, z) => (mixes(layer)
  ? MIXING[layer.act.name].value(z) : z.map((v) => sigma(layer, v)));

/** All values: a[0] is the input, z[l] and a[l + 1] are those of layer l. */
function forward(net, x) {
  const a = [x], z = [];
  for (const layer of net) { z.push(weightedSum(layer, a[a.length - 1])); a.push(activate(layer, z[z.length - 1])); }
  return { a, z };
}

const costOf = (kind, a, label) => sum(COSTS[kind].terms(a, desired(label, a.length)));

/** Forwards and backwards: also C, ga[l + 1] = ∂C/∂a of layer l, and delta[l] = ∂C/∂z. */
function pass(net, kind, x, label) {
  const { a, z } = forward(net, x), last = net.length - 1, y = desired(label, a[last + 1].length);
  const ga = [], delta = [];
  ga[last + 1] = COSTS[kind].grad(a[last + 1], y);
  for (let l = last; l >= 0; l--) {
    const layer = net[l], g = ga[l + 1];
    delta[l] = mixes(layer) ? MIXING[layer.act.name].delta(g, z[l], a[l + 1])
      : g.map((v, j) => v * slopeAt(layer, z[l][j], a[l + 1][j]));
    if (l) ga[l] = backThrough(layer, delta[l]);
  }
  return { a, z, y, ga, delta, terms: COSTS[kind].terms(a[last + 1], y), C: costOf(kind, a[last + 1], label) };
}

/** ∂C/∂a of the layer before: a sum over paths, one for each weighted sum that it enters. */
function backThrough(layer, delta) {
  const { W, from, to } = layer, g = new Float64Array(from);
  for (let j = 0, at = 0; j < to; j++) {
    const d = delta[j];
    for (let k = 0; k < from; k++, at++) g[k] += W[at] * d;
  }
  return g;
}

/** The mean over passes of ∂C/∂W and ∂C/∂b, layer by layer. */
function gradients(net, passes) {
  return net.map(({ W, b, from, to }, l) => {
    const grad = { W: new Float64Array(W.length), b: b && new Float64Array(to) };
    for (const { a, delta } of passes) {
      for (let j = 0, at = 0; j < to; j++) {
        const d = delta[l][j] / passes.length;
        if (b) grad.b[j] += d;
        for (let k = 0; k < from; k++, at++) grad.W[at] += d * a[l][k];
      }
    }
    return grad;
  });
}

/** One step of gradient descent, in place. */
function descend(net, grads, rate) {
  net.forEach((layer, l) => {
    for (let i = 0; i < layer.W.length; i++) layer.W[i] -= rate * grads[l].W[i];
    if (layer.b) for (let j = 0; j < layer.to; j++) layer.b[j] -= rate * grads[l].b[j];
  });
}

/** What a nudge of one weight does: to z and a of its neuron and to C, by tangents and in truth. */
function nudge(net, kind, x, label, [l, j, k], by) {
  const before = pass(net, kind, x, label), layer = net[l], at = j * layer.from + k, w = layer.W[at];
  layer.W[at] = w + by;
  const after = forward(net, x), C = costOf(kind, after.a[net.length], label);
  layer.W[at] = w;
  const dz = before.a[l][k] * by, slope = slopeAt(layer, before.z[l][j], before.a[l + 1][j]);
  return {
    predicted: { z: dz, a: dz * slope, C: before.delta[l][j] * dz },
    measured: { z: after.z[l][j] - before.z[l][j], a: after.a[l + 1][j] - before.a[l + 1][j], C: C - before.C },
  };
}
