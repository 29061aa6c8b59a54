// Numbers and symbols as they are printed.

const $ = (id) => document.getElementById(id);

/** Three significant digits, in characters that programs read too. */
function num(v) {
  if (!Number.isFinite(v)) return String(v);
  const size = Math.abs(v);
  if (size === 0) return "0";
  const text = size < 1e-3 || size >= 1e5 ? v.toExponential(2) : v.toPrecision(3);
  return text.includes("e+") && size < 1e5 ? String(Math.round(v)) : text;
}
const n = (v, kind = "") => `<b class="n ${kind}">${num(v)}</b>`;
const signed = (v) => (v < 0 ? num(v) : `+${num(v)}`);
const bracket = (v) => (v < 0 ? `(${num(v)})` : num(v));
const percent = (v) => `${Math.round(100 * v)} %`;

/** A letter of the lesson, in its colour, with its layer above and its indices below. */
function letter(name, kind, l, index = "") {
  const above = l === undefined ? "" : `<sup>(${l})</sup>`, below = index === "" ? "" : `<sub>${index}</sub>`;
  const marks = above || below ? `<span class="marks">${above}${below}</span>` : "";
  return `<span class="sym ${kind}"><i>${name}</i>${marks}</span>`;
}
const aOf = (l, i) => letter("a", "a", l, i), zOf = (l, i) => letter("z", "z", l, i);
const wOf = (l, i) => letter("w", "w", l, i), bOf = (l, i) => letter("b", "b", l, i);
const WOf = (l) => letter("W", "w", l), yOf = (i) => letter("y", "y", undefined, i);
const C = letter("C", "c"), deltaOf = (l, i) => letter("δ", "z", l, i);
const slopeOf = (l, i) => `<span class="sym"><i>σ</i>′(${zOf(l, i)})</span>`;
const over = (top, bottom) => `<span class="frac"><span>∂${top}</span><span class="hidden"> / </span><span>∂${bottom}</span></span>`;

const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const lesson = (seconds, words) => `<a href="https://www.youtube.com/watch?v=tIeHLnjs5U8&amp;t=${seconds}s">${words} (${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")})</a>`;

/** Set what an element holds, if it holds something else. */
const held = new WeakMap();
function fill(element, html) {
  if (held.get(element) === html) return;
  held.set(element, html);
  element.innerHTML = html;
}
function set(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** A digit, or any image of numbers, on a canvas; `colour` gives red, green, blue of a number. */
function paint(canvas, values, colour) {
  if (canvas.width !== WIDTH || canvas.height !== HEIGHT) { canvas.width = WIDTH; canvas.height = HEIGHT; }
  const context = canvas.getContext("2d"), image = context.createImageData(WIDTH, HEIGHT);
  for (let i = 0; i < SIZE; i++) {
    const [r, g, b] = colour(values[i]);
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

const THEME = {};
/** The colours of the style sheet, as numbers, for canvases. */
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "plus", "minus"]) {
    const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
    THEME[name] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }
  Object.assign(THEME, { positive: `rgb(${THEME.plus})`, negative: `rgb(${THEME.minus})` });
}
const mix = (from, to, share) => from.map((v, i) => Math.round(v + (to[i] - v) * Math.max(0, Math.min(1, share))));
const inked = (v) => mix(THEME.paper, THEME.ink, v);
const twoWay = (scale) => (v) => mix(THEME.paper, v < 0 ? THEME.minus : THEME.plus, Math.sqrt(Math.abs(v) / (scale || 1)));
