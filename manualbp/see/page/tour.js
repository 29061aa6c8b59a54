// The guided tour, in the lesson's own order.

const TOUR = [
  { title: "A digit, and how wrong it is", panel: "digits-panel", step: () => stepOf("C"),
    text: "This is your network. Choose any digit: those marked ✗ are read wrongly, and the hardest of each row comes first. At the right, each output stands beside the desired one; the red bars add up to the cost.",
    at: [92, "the cost of one example"] },
  { title: "One neuron: a nudge travels", panel: "weight-panel", step: () => stepOf("W", LAST), weight: true,
    text: "One weight into one output. Move the slider: the nudge of w moves z, that moves a, that moves C. Small nudges do what the product of slopes predicts; large ones part from it.",
    at: [191, "a tiny nudge to w"] },
  { title: "The chain rule: three factors", panel: "weight-panel", step: () => stepOf("W", LAST), weight: true,
    text: "How wrong the output is × how responsive the neuron is × how active the input was. Choose another digit, or another line, and see which of the three makes the product small.",
    at: [225, "the chain rule"] },
  { title: "A whole layer: many paths", panel: "neuron-panel", step: () => stepOf(LAST ? "back" : "g"), neuron: true,
    text: "An activation before acts on the cost through every neuron of the next layer. Each bar is a path, w · σ′ · ∂C/∂a, and begins where the one above ends. What they add up to is ∂C/∂a of this neuron: from it everything goes on backwards.",
    at: [512, "the sum over paths"] },
  { title: "The average: a tug of war", panel: "weight-panel", show: "mean", step: () => stepOf("W", 0), weight: true,
    text: "That was one digit. The gradient is the mean over all, and each class pulls its own way; most of it cancels. The digits that pull hardest are shown beside it.",
    at: [310, "the average over examples"] },
  { title: "The step downhill", panel: "step-panel", step: () => stepOf("step"),
    text: "All gradients together say which way is downhill. Take a step, on this digit or on all, and see the cost move. Is the learning rate too large? Undo, and try another; or switch the cost to cross-entropy and see σ′ leave δ.",
    at: [563, "stepping downhill"] },
];

let stop = -1;

/** Choose a weight into the worst output, from the most active neuron before. */
function tellingWeight(l) {
  const p = current(), j = largest(p.delta[l]);
  chooseWeight(l, j, largest(p.a[l]));
}

function visit(i) {
  document.querySelector(".on-tour")?.classList.remove("on-tour");
  stop = i;
  $("tour").hidden = i < 0;
  document.body.classList.toggle("touring", i >= 0);
  if (i < 0) { remember(); $("start-tour").focus({ preventScroll: true }); return; }
  const here = TOUR[i];
  go(here.step());
  if (here.weight) tellingWeight(STEPS[state.step].l);
  if (here.neuron) delete state.unit[STEPS[state.step].l];
  fill($("tour-title"), `<small>${i + 1} of ${TOUR.length}</small> ${here.title}`);
  fill($("tour-text"), `${here.text} <span class="lesson">In the lesson: ${lesson(...here.at)}</span>`);
  $("tour-back").disabled = i === 0;
  $("tour-next").textContent = i === TOUR.length - 1 ? "End" : "Next";
  draw();
  const panel = $(here.panel);
  panel.classList.add("on-tour");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $(here.show ?? here.panel).scrollIntoView({ block: here.show ? "start" : "nearest", behavior: calm ? "auto" : "smooth" });
}

// A file from disk may have no storage; then the tour opens every time.
function remember() { try { localStorage.setItem("manualbp-tour", "seen"); } catch { /* none */ } }
function seen() { try { return localStorage.getItem("manualbp-tour") === "seen"; } catch { return false; } }

$("start-tour").addEventListener("click", () => { visit(0); $("tour-title").focus({ preventScroll: true }); });
$("tour-next").addEventListener("click", () => visit(stop === TOUR.length - 1 ? -1 : stop + 1));
$("tour-back").addEventListener("click", () => visit(stop - 1));
$("tour-end").addEventListener("click", () => visit(-1));
