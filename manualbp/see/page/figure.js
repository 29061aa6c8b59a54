// The network drawn: the digit, columns of neurons, weights as lines, the outputs and the cost.

const SVG = "http://www.w3.org/2000/svg";
const MOST_UNITS = 24, MOST_LINES = 300, PITCH = 27;
const svg = $("lines"), digitCanvas = $("pixels");
const above = (l) => `⁽${String(l).replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])}⁾`;

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  parent.append(element);
  return element;
}
/** As `set`, without asking the element. */
function put(element, attributes) {
  const kept = (element.kept ??= {});
  for (const key in attributes) {
    if (kept[key] !== attributes[key]) element.setAttribute(key, (kept[key] = attributes[key]));
  }
}

// ---------------------------------------------------------------- what is shown, and where

/** The neurons of a layer that are drawn: all, or those whose activation enters most. */
function shownUnits(l) {
  const { to } = state.net[l];
  if (to <= MOST_UNITS) return Array.from({ length: to }, (_, j) => j);
  const p = current(), next = state.net[l + 1], says = new Float64Array(to);
  for (let j = 0; j < to; j++) {
    if (!next) says[j] = p.a[l + 1][j];
    else for (let i = 0, at = j; i < next.to; i++, at += to) says[j] += Math.abs(next.W[at]);
    says[j] = next ? Math.abs(says[j] * p.a[l + 1][j]) : says[j];
  }
  const asked = [unitOf(l), ...(state.weight ?? [])].filter((j, i) => i === 0
    || (i === 2 && state.weight[0] === l) || (i === 3 && state.weight[0] === l + 1));
  if (!next) asked.push(DIGITS[state.example].label);
  const order = Array.from(says.keys()).sort((i, j) => says[j] - says[i]);
  return [...new Set([...asked, ...order])].slice(0, MOST_UNITS).sort((i, j) => i - j);
}

function layOut(width) {
  const narrow = width < 620, units = state.net.map((_, l) => shownUnits(l));
  const rows = Math.max(...units.map((u) => u.length), 10), height = rows * PITCH;
  const image = Math.round(narrow ? Math.min(78, width * 0.23) : Math.min(196, width * 0.2));
  const table = narrow ? 84 : 240, top = 42, middle = top + height / 2;
  const last = width - table - 16, gap = (last - image - 4) / units.length;
  const columns = units.map((u, l) => {
    const pitch = Math.min(42, height / u.length);
    return { units: u, x: image + 4 + gap * (l + 1), pitch, radius: Math.min(narrow ? 9 : 11, pitch * 0.4),
      y: new Map(u.map((j, i) => [j, middle + (i - (u.length - 1) / 2) * pitch])) };
  });
  return { narrow, width, height: top + height + 26, image, top: middle - image / 2, columns, gap, table };
}

/** Where weight (l, j, k) begins: at a pixel, or at a neuron. */
function beginning(lay, l, k) {
  if (l) return [lay.columns[l - 1].x, lay.columns[l - 1].y.get(k)];
  const cell = lay.image / Math.max(WIDTH, HEIGHT);
  return [((k % WIDTH) + 0.5) * cell, lay.top + (Math.floor(k / WIDTH) + 0.5) * cell];
}

/** The lines that are drawn into layer l, as [to, from, where its grip would best be]. */
function shownLines(lay, l) {
  const { W, from } = state.net[l], a = current().a[l], to = lay.columns[l].units, found = [];
  const mine = state.weight?.[0] === l ? state.weight : null;
  if (l === 0) {
    const chosen = state.at === 0 ? unitOf(0) : -1;
    for (const j of to) {
      const most = j === chosen ? 14 : 2, best = [];
      for (let k = 0; k < from; k++) {
        const v = Math.abs(W[j * from + k] * a[k]);
        if (!v || (best.length === most && v <= best[most - 1][0])) continue;
        let i = best.length;
        while (i && best[i - 1][0] < v) i--;
        best.splice(i, 0, [v, k]);
        best.length = Math.min(best.length, most);
      }
      best.forEach(([, k], i) => found.push([j, k, 0.86 - (0.5 * i) / most]));
      if (mine?.[1] === j && !best.some(([, k]) => k === mine[2])) found.push([j, mine[2], 0.3]);
    }
    return found;
  }
  const units = lay.columns[l - 1].units;
  units.forEach((k, i) => to.forEach((j) => found.push([j, k, 0.22 + (0.56 * i) / Math.max(units.length - 1, 1)])));
  if (found.length <= 420) return found;
  const says = ([j, k]) => (mine?.[1] === j && mine[2] === k ? Infinity : Math.abs(W[j * from + k] * a[k]));
  return found.sort((one, other) => says(other) - says(one)).slice(0, MOST_LINES);
}

// ---------------------------------------------------------------- elements

let drawn = { key: "", placed: [], neurons: new Map(), rows: [] };

/** Make the elements anew, where other neurons are shown or there is another width. */
function build(lay) {
  svg.replaceChildren();
  put(svg, { viewBox: `0 0 ${lay.width} ${lay.height}`, width: lay.width, height: lay.height });
  drawn = { lay, placed: [], neurons: new Map(), rows: [], columns: [] };
  drawn.under = state.net.map(() => make("g", { "aria-hidden": "true" }, svg));
  drawn.pixel = make("rect", { class: "pixel", "aria-hidden": "true", width: 0, height: 0 }, svg);
  const heads = make("g", { class: "heads", "aria-hidden": "true" }, svg);
  const head = (x, text, anchor = "middle") => { make("text", { x, y: 16, "text-anchor": anchor }, heads).textContent = text; };
  head(lay.image / 2, lay.narrow ? "a⁽⁰⁾" : "pixels a⁽⁰⁾");
  lay.columns.forEach((column, l) => {
    head(column.x, `a${above(l + 1)}`);
    const all = state.net[l].to, some = column.units.length;
    if (some < all) make("text", { x: column.x, y: lay.height - 6, class: "note", "text-anchor": "middle" }, heads).textContent = `${some} of ${all}`;
    const name = l === LAST ? "outputs" : `hidden layer ${l + 1}`;
    const group = make("g", { role: "group", "aria-label": `${name}: ${all} neurons` }, svg);
    for (const j of column.units) drawn.neurons.set(`${l}:${j}`, neuron(group, lay, column, l, j));
  });
  outputs(lay, head);
}

function neuron(group, lay, column, l, j) {
  const { x, radius: r } = column, y = column.y.get(j);
  const g = make("g", { class: "neuron", role: "button", tabindex: -1, "data-neuron": `${l}:${j}`, transform: `translate(${x} ${y})` }, group);
  make("rect", { class: "hit", x: -13, y: -12.5, width: 26, height: 25 }, g);
  make("circle", { class: "ring", r: r + 3.5 }, g);
  const body = make("circle", { class: "body", r }, g);
  const minus = make("path", { class: "minus", d: `M${-r / 2} 0H${r / 2}` }, g);
  const arrow = make("path", { class: "arrow", transform: `translate(${r + (lay.narrow ? 4 : 6)} 0)` }, g);
  return { g, body, minus, arrow, l, j };
}

/** Beside each output: what it says, what is desired, and its part of the cost. */
function outputs(lay, head) {
  const { columns, narrow, width, table } = lay, column = columns[LAST], at = width - table + (narrow ? 6 : 14);
  const rows = make("g", { class: "rows", "aria-hidden": "true" }, svg);
  const places = narrow ? { digit: at + 8, y: at + 26, bar: at + 38 } : { digit: at + 14, a: at + 84, y: at + 106, bar: at + 126 };
  head(places.y, "y");
  if (!narrow) head(places.a, "a", "end");
  head(places.bar, narrow ? "C" : "part of C", "start");
  for (const j of column.units) {
    const y = column.y.get(j), text = (x, anchor, kind) => make("text", { x, y: y + 4.5, "text-anchor": anchor, class: kind }, rows);
    const digit = text(places.digit, "middle", "digit");
    digit.textContent = j;
    const box = make("rect", { x: places.y - 7, y: y - 7, width: 14, height: 14, rx: 3 }, rows);
    const room = width - places.bar - (narrow ? 2 : 50);
    drawn.rows.push({ j, digit, box, room, a: narrow ? null : text(places.a, "end", "value"),
      one: text(places.y, "middle", "one"), bar: make("rect", { x: places.bar, y: y - 5, height: 10, rx: 2, class: "part" }, rows),
      part: narrow ? null : text(width, "end", "value") });
  }
}

// ---------------------------------------------------------------- numbers into elements

/** What the lines of a layer stand for at this step: a number of (to, from), and whether they are lit. */
function meaning(l) {
  const { kind, l: at } = STEPS[state.step], p = current(), { W, from } = state.net[l];
  const weight = { of: (j, k) => W[j * from + k], lit: false };
  if (kind === "z" && at === l) return { of: (j, k) => W[j * from + k] * p.a[l][k], lit: true, name: `${wOf(l + 1)}${aOf(l)}` };
  if ((kind === "W" && at === l) || kind === "step") return { of: (j, k) => p.delta[l][j] * p.a[l][k], lit: true, name: over(C, wOf(l + 1)) };
  if (kind === "back" && at === l - 1) {
    const mine = unitOf(at);
    return { of: (j, k) => W[j * from + k] * p.delta[l][j], lit: true, only: (j, k) => k === mine, name: `${wOf(l + 1)}${deltaOf(l + 1)}` };
  }
  return weight;
}

const CELL = 4;
/** Where on a line its grip is: at t, or as near to it as no other grip is in the way. */
function gripAt(taken, lay, x0, y0, x1, y1, t) {
  const ends = 17 / Math.abs(x1 - x0); // clear of the neurons
  for (let i = 0; i < 120; i++) {
    const at = t + (i % 2 ? 1 : -1) * 0.008 * ((i + 1) >> 1);
    if (at < ends || at > 1 - ends) continue;
    const x = x0 + (x1 - x0) * at, y = y0 + (y1 - y0) * at, column = Math.floor(x / CELL), row = Math.floor(y / CELL);
    let free = true;
    for (let dx = -1; free && dx <= 1; dx++) for (let dy = -1; dy <= 1; dy++) if (taken.has((column + dx) * 8192 + row + dy)) { free = false; break; }
    if (!free) continue;
    taken.add(column * 8192 + row);
    return [x, y];
  }
  return [x0 + (x1 - x0) * t, y0 + (y1 - y0) * t];
}

/** Where the lines of a layer run, and grips on them; anew only where others are drawn. */
function placeLines(lay, l) {
  const lines = shownLines(lay, l), kept = drawn.placed[l], key = l && lines.length <= 420 ? "all" : lines.map(([j, k]) => `${j}:${k}`).join();
  if (kept?.key === key) return kept;
  const taken = new Set(), group = drawn.under[l], { x, y, radius } = lay.columns[l], pool = kept?.pool ?? [];
  const placed = lines.map(([j, k, t], i) => {
    const [x0, y0] = beginning(lay, l, k), y1 = y.get(j), start = l ? radius : 0;
    const length = Math.hypot(x - x0, y1 - y0), ux = (x - x0) / length, uy = (y1 - y0) / length, [gx, gy] = gripAt(taken, lay, x0, y0, x, y1, t);
    pool[i] ??= make("circle", { r: lay.narrow ? 3 : 3.6 }, group);
    put(pool[i], { cx: gx.toFixed(1), cy: gy.toFixed(1), "data-weight": `${l}:${j}:${k}`, class: "grip", visibility: "visible" });
    return { l, j, k, grip: pool[i], x1: x0 + ux * start, y1: y0 + uy * start, x2: x - ux * radius, y2: y1 - uy * radius };
  });
  for (let i = lines.length; i < pool.length; i++) put(pool[i], { visibility: "hidden", "data-weight": "" });
  return (drawn.placed[l] = { key, placed, pool });
}

/** The lines are painted, because a browser takes long to lay out hundreds of elements. */
function drawLines(lay, l, context) {
  const { placed } = placeLines(lay, l), { of, lit, only } = meaning(l), [, to, from] = state.weight?.[0] === l ? state.weight : [];
  const values = placed.map(({ j, k }) => of(j, k));
  let most = 1e-300, mine = null;
  for (const v of values) most = Math.max(most, Math.abs(v));
  placed.forEach((line, i) => {
    const share = Math.abs(values[i]) / most, bright = !only || only(line.j, line.k);
    line.negative = values[i] < 0;
    line.width = 0.5 + (lit && bright ? 3 : 1.7) * share;
    line.strength = lit ? (bright ? 0.25 + 0.75 * share : 0.1) : 0.08 + 0.34 * share;
    if (line.j === to && line.k === from) Object.assign((mine = line), { width: 3.5, strength: 1 });
    else stroke(context, line);
  });
  for (const { grip, j, k } of placed) put(grip, { class: j === to && k === from ? "grip mine" : "grip" });
  if (mine) stroke(context, mine);
  return placed.length;
}

function stroke(context, { x1, y1, x2, y2, negative, width, strength }) {
  context.strokeStyle = negative ? THEME.negative : THEME.positive;
  context.globalAlpha = strength;
  context.lineWidth = width;
  context.setLineDash(negative ? DASHED : SOLID);
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
const DASHED = [5, 3], SOLID = [];

/** A clean canvas of the figure's size, as fine as the screen. */
function canvasOf({ width, height }) {
  const canvas = $("wires"), fine = Math.min(3, window.devicePixelRatio || 1), w = Math.round(width * fine), h = Math.round(height * fine);
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d", { willReadFrequently: true }); // in memory: lines alone change
  context.setTransform(fine, 0, 0, fine, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

const ARROW = (v, most) => {
  const h = 3 + 8 * Math.sqrt(Math.abs(v) / most), up = v > 0 ? 1 : -1; // the cost falls the other way
  return `M0 ${(-up * h).toFixed(1)}V${(up * h).toFixed(1)}M-3 ${(up * (h - 3.5)).toFixed(1)}L0 ${(up * h).toFixed(1)}L3 ${(up * (h - 3.5)).toFixed(1)}`;
};

/** Whether values (forwards) or gradients (backwards) of layer l have been reached. */
function reached(l) {
  const here = state.step;
  return { a: here >= stepOf("a", l), g: here >= stepOf(l === LAST ? "g" : "back", l), now: STEPS[here].l === l && STEPS[here].kind !== "step" };
}

function drawNeurons(lay) {
  const p = current(), focus = state.at;
  for (const { g, body, minus, arrow, l, j } of drawn.neurons.values()) {
    const values = p.a[l + 1], top = scaleOf(l), { a, g: back, now } = reached(l), v = values[j], ga = p.ga[l + 1][j];
    const chosen = l === focus && j === unitOf(l), mine = chosen && state.at === l;
    put(body, { style: `--share:${Math.min(100, (100 * Math.abs(v)) / top).toFixed(0)}%` });
    put(minus, { visibility: v < 0 ? "visible" : "hidden" });
    const gradients_ = p.ga[l + 1], most = Math.abs(gradients_[largest(gradients_)]);
    put(arrow, back && most && ga ? { visibility: "visible", d: ARROW(ga, most) } : { visibility: "hidden" });
    put(g, { class: `neuron${a ? "" : " ahead"}${now ? " now" : ""}${mine ? " chosen" : ""}`,
      tabindex: String(chosen || (l !== focus && j === entry(lay, l)) ? 0 : -1), "aria-pressed": String(mine),
      "aria-label": `${l === LAST ? "output" : `layer ${l + 1}, neuron`} ${j}: z ${num(p.z[l][j])}, a ${num(v)}, gradient of the cost by a ${num(ga)}` });
  }
}
const scaleOf = (l) => (["sigmoid", "softmax"].includes(state.net[l].act.name) ? 1 : Math.abs(current().a[l + 1][largest(current().a[l + 1])]) || 1);
const entry = (lay, l) => (lay.columns[l].units.includes(unitOf(l)) ? unitOf(l) : lay.columns[l].units[0]);

function drawOutputs() {
  const p = current(), known = state.step >= stepOf("C"), most = Math.max(...p.terms, 0.02), best = guess(p);
  for (const { j, digit, box, one, bar, a, part, room } of drawn.rows) {
    const wanted = p.y[j] === 1;
    put(digit, { class: `digit${j === best ? " best" : ""}` });
    put(box, { class: wanted ? "want" : "not" });
    if (one.textContent !== (wanted ? "1" : "0")) one.textContent = wanted ? "1" : "0";
    put(one, { class: wanted ? "one" : "one none" });
    put(bar, { width: (room * Math.max(0, p.terms[j]) / most).toFixed(1), class: known ? "part" : "part ahead" });
    if (a) { a.textContent = num(p.a[LAST + 1][j]); part.textContent = num(p.terms[j]); put(part, { class: known ? "value" : "value ahead" }); }
  }
}

let painted = -1, width = Math.floor($("figure").clientWidth); // asking for it lays the page out
function drawFigure() {
  const units = state.net.map((_, l) => (state.net[l].to > MOST_UNITS ? shownUnits(l) : ""));
  const key = `${width} ${units.join(";")}`;
  if (key !== drawn.key) { build(layOut(width)); drawn.key = key; painted = -1; }
  const { lay } = drawn;
  if (painted !== state.example) {
    paint(digitCanvas, DIGITS[state.example].x, inked);
    Object.assign(digitCanvas.style, { width: `${lay.image}px`, height: `${(lay.image * HEIGHT) / WIDTH}px`, top: `${lay.top}px` });
    painted = state.example;
  }
  const context = canvasOf(lay);
  let lines = 0;
  for (let l = 0; l <= LAST; l++) lines += drawLines(lay, l, context);
  drawNeurons(lay);
  drawOutputs();
  const pixel = state.weight?.[0] === 0 ? beginning(lay, 0, state.weight[2]) : null, cell = lay.image / WIDTH;
  put(drawn.pixel, pixel ? { visibility: "visible", x: (pixel[0] - cell).toFixed(1), y: (pixel[1] - cell).toFixed(1), width: (2 * cell).toFixed(1), height: (2 * cell).toFixed(1) } : { visibility: "hidden" });
  caption(lines);
}

function caption(lines) {
  const all = sum(state.net.map(({ W }) => W.length)), { kind } = STEPS[state.step];
  const lit = state.net.map((_, l) => meaning(l)).find(({ lit: yes }) => yes);
  const what = lit ? lit.name : wOf();
  fill($("caption"), `<span class="key"><svg width="26" height="8" aria-hidden="true"><line class="pos" x1="0" x2="26" y1="4" y2="4" stroke-width="3"/></svg> positive</span>
    <span class="key"><svg width="26" height="8" aria-hidden="true"><line class="neg" x1="0" x2="26" y1="4" y2="4" stroke-width="3"/></svg> negative</span>
    <span>width: the size of ${what}</span>
    ${STEPS[state.step].phase === "backward" ? `<span class="key"><span class="c">↑↓</span> which way each ${aOf()} should move</span>` : ""}
    <span>${lines} of ${all.toLocaleString("en")} weights drawn${kind === "input" ? ", the strongest from pixels" : ""}</span>`);
}

/** The weight whose line is nearest to a point of the drawing, within a few pixels. */
function nearest(x, y, reach = 7) {
  let best = null;
  drawn.placed.forEach(({ placed }) => placed.forEach(({ l, j, k, x1, y1, x2, y2, width }) => {
    const dx = x2 - x1, dy = y2 - y1, t = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy)));
    const far = Math.hypot(x - x1 - t * dx, y - y1 - t * dy) - width / 2;
    if (far < reach) { reach = far; best = `${l}:${j}:${k}`; }
  }));
  return best;
}
