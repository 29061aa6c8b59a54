"""The page that ``report`` writes, seen by a browser, and held to torch."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trained import save, stored

import manualbp
from manualbp import __main__
from manualbp.commands import _report
from manualbp.see.page.html import ACTIVATIONS, MOST_SNAPSHOTS, files, page
from manualbp.training import network
from manualbp.training.network import ONE_HOT_COSTS

F = torch.nn.functional
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FLAGS += ["--disable-component-update", "--disable-sync"]
COSTS = {
    "squared_error": lambda a, y, i: (a - y).square().sum(),
    "mse": lambda a, y, i: (a - y).square().mean(),
    "cross_entropy": lambda a, y, i: F.cross_entropy(a, i, reduction="sum"),
    "nll": lambda a, y, i: F.nll_loss(a, i, reduction="sum"),
    "bce_with_logits": lambda a, y, i: F.binary_cross_entropy_with_logits(a, y),
    "binary": lambda a, y, i: F.binary_cross_entropy(a, y, reduction="sum"),
    "squared_of_softmax": lambda a, y, i: (a.softmax(1) - y).square().sum(),
}


def examples(n: int = 20) -> tuple[Tensor, Tensor]:
    """Images like digits: three quarters of the pixels have no ink."""
    ink = torch.randint(0, 256, (n, 1, 28, 28)) * (torch.rand(n, 1, 28, 28) > 0.75)
    return ink / 255, torch.arange(n) % 10


def document_net() -> nn.Sequential:
    """The document's network, of weights that are far from all alike."""
    sizes = [784, 16, 16, 10]
    net = network.build(sizes, "sigmoid", "sigmoid", 0.0, 0.0, "lecun_normal")
    for name, parameter in net.named_parameters():
        nn.init.normal_(parameter, std=0.12 if name.startswith("1") else 1.0)
    return net.eval()


class Opened:
    """The page of one network in one browser, and the network."""

    def __init__(self, browser_page: Any, net: nn.Sequential, images: Tensor, labels: Tensor):
        self.page, self.net, self.images, self.labels = browser_page, net, images, labels
        self.said: list[str] = []
        self.asked: list[str] = []

    def numbers(self, selector: str) -> list[float]:
        text = self.page.inner_text(selector)
        return [float(x) for x in re.findall(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+e-?\d+", text)]

    def number(self, selector: str) -> float:
        return float(self.page.inner_text(selector))

    def go(self, fragment: str) -> None:
        """As a link would, from the state in which the page opens."""
        self.page.evaluate(
            """(fragment) => { const { state, DATA, open, draw, makeNet } = manualbp;
            Object.assign(state, { net: makeNet(DATA.snapshots[DATA.current].layers), undo: [],
              time: DATA.current, cost: DATA.cost, weight: null, unit: {}, step: 0, by: 0.01,
              rate: DATA.rate, scope: 'digit', at: DATA.layers.length - 1 });
            document.getElementById('scope-digit').checked = true;
            document.getElementById('rate').value = DATA.rate;
            manualbp.changed(); open(fragment); draw(); }""",
            fragment,
        )


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    torch.manual_seed(0)
    net, (images, labels) = document_net(), examples()
    before = {
        f"epoch {i}": {k: v * i / 3 for k, v in net.state_dict().items()} for i in range(1, 4)
    }
    file = tmp_path_factory.mktemp("page") / "report.html"
    text = page(net, "squared_error", images, labels, snapshots=before, rate=0.2)
    file.write_text(text, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1600, "height": 1000})
        found = Opened(tab, net, images, labels)
        tab.on("console", lambda message: found.said.append(message.text))
        tab.on("pageerror", lambda error: found.said.append(str(error)))
        tab.on("request", lambda request: found.asked.append(request.url))
        tab.goto(file.as_uri())
        yield found
        browser.close()


slow = pytest.mark.slow


# ------------------------------------------------------------------------------- from disk


@slow
def test_it_opens_from_disk_asks_for_nothing_and_begins_with_the_tour(opened):
    assert opened.page.is_visible("#tour")
    titles = [opened.page.inner_text("#tour-title")]
    while opened.page.inner_text("#tour-next") == "Next":
        opened.page.click("#tour-next")
        titles.append(opened.page.inner_text("#tour-title"))
    opened.page.click("#tour-next")
    assert not opened.page.is_visible("#tour")
    assert len(titles) == 6 and len(set(titles)) == 6
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []


def test_it_is_small_and_its_files_are_in_the_package():
    text = page(document_net(), "squared_error", *examples(50))
    assert len(text) < 2_000_000 / 8
    assert not re.search(r'(src|href)="(?!#|data:|https://www\.(youtube|3blue1brown)\.com)', text)
    assert len(files()) == 9


# ------------------------------------------------------------------------------- arithmetic


def in_page(net: nn.Sequential, cost: str, x: Tensor, label: int) -> str:
    """A program that computes cost and gradients in the page, from plain numbers."""
    from manualbp.see.page.html import read_layers

    layers = read_layers(net)
    for layer in layers:
        linear = net.get_submodule(layer["path"])
        layer |= {"W": linear.weight.flatten().tolist(), "b": linear.bias.tolist()}
    return f"""() => {{
      const net = {json.dumps(layers)}.map(
        (l) => ({{ ...l, W: Float64Array.from(l.W), b: Float64Array.from(l.b) }}));
      const x = Float64Array.from({json.dumps(x.flatten().tolist())});
      const p = manualbp.pass(net, {json.dumps(cost)}, x, {label});
      const g = manualbp.gradients(net, [p]);
      return {{ C: p.C, g: g.flatMap(({{ W, b }}) => [...W, ...b]) }}; }}"""


CASES = [
    *((name, "identity", "squared_error") for name in network.ACTIVATIONS),
    ("tanh", "sigmoid", "binary"),
    ("tanh", "softmax", "binary"),
    ("tanh", "softmax", "mse"),
    ("relu", "identity", "cross_entropy"),
    ("relu", "sigmoid", "cross_entropy"),
    ("relu", "identity", "bce_with_logits"),
    ("silu", "log_softmax", "nll"),
    ("silu", "identity", "squared_of_softmax"),
]


@slow
@pytest.mark.parametrize(("hidden", "last", "cost"), CASES)
def test_value_and_gradients_are_torch_s(opened, hidden, last, cost):
    torch.manual_seed(1)
    net = network.build([4, 7, 6, 5], hidden, last, 0.0, 0.0, "torch").double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x, label = 2 * torch.randn(1, 4, dtype=torch.double), 3
    found = opened.page.evaluate(in_page(net, cost, x, label))
    y, i = torch.eye(5, dtype=torch.double)[[label]], torch.tensor([label])
    value = COSTS[cost](net(x), y, i)
    grads = torch.autograd.grad(value, [*net.parameters()])
    assert math.isclose(found["C"], value.item(), rel_tol=1e-9)
    theirs = torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(
        torch.tensor(found["g"], dtype=torch.double), theirs, rtol=1e-9, atol=1e-12
    )


@slow
def test_options_of_activations_are_read(opened):
    torch.manual_seed(2)
    options = [nn.LeakyReLU(0.3), nn.ELU(0.7), nn.GELU("tanh"), nn.Softplus(2.0, 1.0)]
    linears = [nn.Linear(5, 5) for _ in options]
    net = nn.Sequential(*(m for pair in zip(linears, options, strict=True) for m in pair)).double()
    x = 3 * torch.randn(1, 5, dtype=torch.double)
    found = opened.page.evaluate(in_page(net, "squared_error", x, 2))
    value = (net(x) - torch.eye(5)[2]).square().sum()
    grads = torch.autograd.grad(value, [*net.parameters()])
    theirs = torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(
        torch.tensor(found["g"], dtype=torch.double), theirs, rtol=1e-9, atol=1e-12
    )


@slow
def test_its_numbers_are_the_trace_s(opened):
    """Ten random states: the cost, the three factors, and the sum over paths."""
    net, criterion = opened.net, manualbp.nn.SquaredError()
    linears = [name for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    generator = torch.Generator().manual_seed(3)

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    for _ in range(10):
        n, at = draw(20), draw(3)
        linear = net.get_submodule(linears[at])
        to, source = draw(linear.out_features), draw(linear.in_features)
        opened.go(f"#example={n}&weight={at}:{to}:{source}")
        x, y = opened.images[n : n + 1], opened.labels[n : n + 1]
        trace = manualbp.trace(net, x, y, cost=criterion)
        layer, after = trace[linears[at]], trace[str(int(linears[at]) + 1)]
        wrong, delta = after.grad_output[0, to], layer.grad_output[0, to]
        active = layer.input[0, source]
        a = after.output[0, to]
        factors = [wrong, a * (1 - a), active, layer.grads["weight"][to, source]]
        assert torch.allclose(delta * active, factors[-1])
        close(opened.number("#cost"), trace.cost)
        explained = opened.page.eval_on_selector_all(
            "#explain .factor b", "found => found.map((b) => Number(b.textContent))"
        )
        for found, expected in zip(explained, factors, strict=True):
            close(found, expected)
        if at < 2:
            close(float(opened.page.inner_text(".path.total .n")), wrong)


def close(found: float, expected: Tensor | float) -> None:
    """To the three digits that are printed."""
    expected = torch.as_tensor(expected).item()
    assert math.isclose(found, expected, rel_tol=6e-3, abs_tol=1e-12), (found, expected)


# ------------------------------------------------------------------------------- what can be done


@slow
def test_a_click_chooses_a_digit_a_neuron_a_weight(opened):
    tab = opened.page
    opened.go("#example=0")
    tab.click('[data-example="7"]')
    assert tab.get_attribute('[data-example="7"]', "aria-pressed") == "true"
    a = opened.net(opened.images[7:8])
    close(opened.number("#cost"), (a - torch.eye(10)[7]).square().sum())
    tab.click('[data-neuron="1:4"]')
    assert "Neuron 4 of layer 2" in tab.inner_text("#neuron-name")
    tab.click('[data-weight="2:3:5"]')
    close(opened.numbers("#weight-name")[0], opened.net[5].weight[3, 5])
    tab.wait_for_url(re.compile("#example=7&weight=2:3:5"))
    tab.click('[data-from="11"]')
    assert tab.input_value("#address") == "2 3 11"
    box = tab.locator("#lines").bounding_box()
    tab.click('[data-neuron="0:2"]')
    assert box["width"] > 500
    tab.click("#weights-image", position={"x": 75, "y": 75})
    assert re.fullmatch(r"0 2 4\d\d|0 2 39\d", tab.input_value("#address"))


@slow
def test_every_weight_that_is_drawn_can_be_clicked(opened):
    opened.go("#example=3")
    covered = opened.page.evaluate(
        """() => { document.getElementById('figure').scrollIntoView();
        return [...document.querySelectorAll('[data-weight]')].filter((g) => g.dataset.weight)
        .filter((g) => { const b = g.getBoundingClientRect();
          const hit = document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2);
          return hit !== g; }).map((g) => g.dataset.weight); }"""
    )
    drawn = opened.page.locator('[data-weight]:not([data-weight=""])').count()
    assert drawn > 430
    assert covered == []


@slow
def test_by_the_keyboard_alone(opened):
    tab = opened.page
    opened.go("#example=0")
    tab.focus('[data-example="0"]')
    tab.keyboard.press("ArrowRight")
    chosen = tab.evaluate("document.activeElement.dataset.example")
    assert chosen != "0"
    tab.wait_for_url(re.compile(f"#example={chosen}&"))
    tab.keyboard.press("Tab")  # to the steps
    assert tab.evaluate("document.activeElement.dataset.step") == "0"
    for _ in range(8):
        tab.keyboard.press("ArrowRight")
    assert "how wrong" in tab.inner_text("#step-title")
    tab.keyboard.press("ArrowLeft")
    assert "cost" in tab.inner_text("#step-title")
    for _ in range(4):  # back, forward, a link, a column
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.dataset.neuron"):
            break
    where = tab.evaluate("document.activeElement.dataset.neuron")
    tab.keyboard.press("ArrowDown" if not where.endswith(":15") else "ArrowUp")
    other = tab.evaluate("document.activeElement.dataset.neuron")
    assert other != where and other.split(":")[0] == where.split(":")[0]
    tab.focus("#address")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("0 3 407")
    tab.keyboard.press("Enter")
    close(opened.numbers("#weight-name")[0], opened.net[1].weight[3, 407])
    tab.keyboard.press("Control+A")
    tab.keyboard.type("0 3 999")
    tab.keyboard.press("Enter")
    assert "No such weight" in tab.inner_text("#no-weight")


@slow
def test_a_nudge_is_predicted_and_measured(opened):
    opened.go("#example=4&weight=1:3:5")
    opened.page.fill("#nudge", "0.5")
    net, x, y = opened.net, opened.images[4:5], torch.eye(10)[4]
    double = network.build([784, 16, 16, 10], "sigmoid", "sigmoid", 0, 0, "torch").double()
    double.load_state_dict(net.state_dict())
    cost = (double(x.double()) - y).square().sum()
    (grad,) = torch.autograd.grad(cost, [double[3].weight])
    with torch.no_grad():
        double[3].weight[3, 5] += 0.5
        moved = (double(x.double()) - y).square().sum() - cost
    predicted, measured = (
        float(opened.page.get_attribute(f"#{name}", "data-value"))
        for name in ("predicted", "measured")
    )
    assert math.isclose(predicted, 0.5 * grad[3, 5].item(), rel_tol=1e-6)
    assert math.isclose(measured, moved.item(), rel_tol=1e-6)
    close(opened.number("#measured"), measured)


@slow
@pytest.mark.parametrize("scope", ["digit", "all"])
def test_a_step_gives_the_cost_that_torch_gives(opened, scope):
    tab = opened.page
    opened.go("#example=4")
    before = tab.get_attribute("#cost", "data-value")
    tab.check(f"#scope-{scope}")
    tab.fill("#rate", "0.3")
    tab.click("#descend")
    net = network.build([784, 16, 16, 10], "sigmoid", "sigmoid", 0, 0, "torch").double()
    net.load_state_dict(opened.net.state_dict())
    images, criterion = opened.images.double(), manualbp.nn.SquaredError()
    some = slice(4, 5) if scope == "digit" else slice(None)
    criterion(net(images[some]), opened.labels[some]).backward()
    torch.optim.SGD(net.parameters(), lr=0.3).step()
    for selector, chosen in (("#cost", slice(4, 5)), ("#mean-cost", slice(None))):
        expected = criterion(net(images[chosen]), opened.labels[chosen]).item()
        assert math.isclose(
            float(tab.get_attribute(selector, "data-value")), expected, rel_tol=1e-6
        )
    tab.click("#undo")
    assert tab.get_attribute("#cost", "data-value") == before
    assert tab.is_disabled("#undo")


@slow
def test_with_cross_entropy_the_slope_leaves_delta(opened):
    tab = opened.page
    opened.go(f"#example=4&neuron=2:6&step={8 + 1}")
    assert "σ′" in tab.inner_text("#cancels") and "cancelled" not in tab.inner_text("#cancels")
    tab.select_option("#cost-kind", "cross_entropy")
    assert "σ′ has cancelled" in tab.inner_text("#cancels")
    a = opened.net(opened.images[4:5])
    close(opened.numbers("#formula .numbers")[-1], a[0, 6])
    expected = F.binary_cross_entropy(a, torch.eye(10)[[4]], reduction="sum")
    close(opened.number("#cost"), expected)
    tab.wait_for_url(re.compile("cost=cross_entropy"))


@slow
def test_time_goes_back_to_what_the_network_was(opened):
    opened.go("#example=4")
    opened.page.fill("#time", "0")
    assert opened.page.inner_text("#time-name") == "epoch 1"
    net = document_net()
    net.load_state_dict({k: v / 3 for k, v in opened.net.state_dict().items()})
    close(opened.number("#cost"), (net(opened.images[4:5]) - torch.eye(10)[4]).square().sum())


@slow
def test_each_step_has_its_formula_in_letters_and_numbers(opened):
    opened.go("#example=4")
    shown = [opened.page.inner_text("#formula")]
    while not opened.page.is_disabled("#step-forward"):
        opened.page.click("#step-forward")
        shown.append(opened.page.inner_text("#formula"))
    assert len(shown) == 18 and len(set(shown)) == 18
    assert [text for text in shown if "undefined" in text or "NaN" in text] == []
    opened.page.click("#step-back")
    assert opened.page.inner_text("#formula") == shown[-2]


# ------------------------------------------------------------------------------- for people


@slow
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_the_screen(opened, width):
    opened.go("#example=4&weight=0:3:407")
    opened.page.set_viewport_size({"width": width, "height": 800})
    wide = opened.page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll('main *')]
        .map((e) => Math.max(e.getBoundingClientRect().right, e === document.documentElement
          ? e.scrollWidth : 0) - innerWidth)"""
    )
    opened.page.set_viewport_size({"width": 1600, "height": 1000})
    assert max(wide) <= 0.5


@slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1600, "light"), (1600, "dark")])
def test_axe_finds_nothing(opened, width, scheme):
    """Of WCAG 2.2, levels A and AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened.go("#example=4&weight=1:3:5&step=10")
    opened.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.click("#start-tour")
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    options = {"runOnly": {"type": "tag", "values": levels}, "resultTypes": ["violations"]}
    found = axe.Axe().run(opened.page, options=options).response["violations"]
    opened.page.click("#tour-end")
    opened.page.set_viewport_size({"width": 1600, "height": 1000})
    nodes = [(v["id"], n["target"], n["failureSummary"]) for v in found for n in v["nodes"]]
    assert nodes == []


@slow
def test_a_wide_network_shows_its_strongest_and_says_how_many(opened, tmp_path):
    torch.manual_seed(4)
    net = network.build([784, 128, 64, 10], "relu", "identity", 0.2, 0.5, "kaiming_normal").eval()
    file = tmp_path / "wide.html"
    file.write_text(page(net, "cross_entropy", *examples(10)), encoding="utf-8")
    tab = opened.page.context.browser.new_page()
    tab.on("pageerror", lambda error: opened.said.append(str(error)))
    tab.goto(f"{file.as_uri()}#example=4&weight=1:60:127")
    assert tab.locator('[data-neuron^="0:"]').count() == 24
    assert tab.locator('[data-weight="1:60:127"]').count() == 1
    assert "24 of 128" in tab.inner_text("#figure") and "24 of 64" in tab.inner_text("#figure")
    caption = tab.inner_text("#caption")
    drawn, every = re.search(r"(\d+) of ([\d,]+) weights drawn", caption).groups()
    assert int(drawn) < 1000 and every == f"{784 * 128 + 128 * 64 + 64 * 10:,}"
    values = tab.eval_on_selector_all("#cost-kind option", "found => found.map((o) => o.value)")
    assert values == ["cross_entropy", "squared_error"]
    tab.close()
    assert opened.said == []


# ------------------------------------------------------------------------------- what is refused

CONVOLUTION = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 10))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(784, 10)


REFUSED = [
    (CONVOLUTION, {}, "0 is a Conv2d: it uses each weight at many places"),
    (Branches(), {}, "the network is a Branches, whose forward is code"),
    (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784)), {}, "1 is a BatchNorm1d"),
    (nn.Sequential(nn.Flatten()), {}, "has no Linear layer"),
    (nn.Sequential(nn.ReLU(), nn.Linear(784, 10)), {}, "0 (ReLU) follows none"),
    (nn.Sequential(nn.Linear(784, 9), nn.Linear(8, 10)), {}, "1 takes 8 numbers, but 0 gives 9"),
    (nn.Sequential(nn.Linear(784, 10), nn.Softmax(0)), {}, "1 is a Softmax along another axis"),
    (nn.Sequential(nn.Linear(783, 10)), {}, "takes 783 numbers, and an image has 784"),
    (nn.Sequential(nn.Linear(784, 5)), {}, "labels lie in 0 to 4"),
    (document_net(), {"cost": "hinge"}, "cost is one of squared_error, mse"),
    (document_net(), {"images": torch.rand(20, 784)}, "got (20, 784)"),
    (document_net(), {"labels": torch.arange(3)}, "labels are classes (20,), got (3,)"),
    (document_net(), {"snapshots": {"a": {}}}, "a snapshot has no 1.weight"),
]


@pytest.mark.parametrize(("net", "given", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
def test_what_cannot_be_shown_is_refused_with_the_reason(net, given, said):
    images, labels = examples()
    arguments = {"cost": "squared_error", "images": images, "labels": labels} | given
    with pytest.raises(ValueError, match=re.escape(said)):
        page(net, **arguments)


def test_every_activation_and_cost_of_training_can_be_shown():
    for name in network.ACTIVATIONS:
        net = network.build([784, 3, 10], name, "identity", 0.0, 0.0, "torch")
        assert f'"name":"{name}"' in page(net, "squared_error", *examples(2))
    for cost in network.COSTS:
        page(document_net(), cost, *examples(2))
    assert len(ACTIVATIONS) == len(network.ACTIVATIONS) - 1  # all but the identity
    assert {"mse"} < ONE_HOT_COSTS


def test_of_many_snapshots_some_are_taken():
    net = document_net()
    kept = {f"epoch {i}": {k: v + i + 1 for k, v in net.state_dict().items()} for i in range(40)}
    text = page(net, "squared_error", *examples(2), snapshots=kept)
    titles = re.findall(r'"title":"([^"]+)"', text)
    assert len(titles) == MOST_SNAPSHOTS + 1
    assert (titles[0], titles[-2:]) == ("epoch 0", ["epoch 39", "the trained network"])


# ------------------------------------------------------------------------------- the command


def test_report_writes_the_page_of_the_latest_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoints = tmp_path / "runs/3b1b/version_0/checkpoints"
    theirs = {"layers": [784, 5, 10], "optimizer": "sgd", "lr": 0.7}
    save(checkpoints / "best.ckpt", stored(0, **theirs), 0)
    save(checkpoints / "last.ckpt", stored(3, **theirs), 0)
    assert __main__.main(["report", "--digits", "12", "-o", "a.html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("a.html  ") and (tmp_path / "a.html").as_uri() in out
    data = re.search(r'id="data">(.*?)</script>', (tmp_path / "a.html").read_text(), re.S)
    data = json.loads(data[1])
    assert sorted(data["labels"]) == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (data["rate"], data["cost"], data["current"]) == (0.7, "mse", 0)
    titles = [each["title"] for each in data["snapshots"]]
    assert titles == ["epoch 1, step 100", "epoch 4, step 400"]
    assert __main__.main(["report", "--digits", "0"]) == 2
    assert __main__.main(["report", "--output", "no/such/folder.html"]) == 2


def test_the_hardest_of_each_class_is_among_the_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = save(tmp_path / "runs/a/version_0/checkpoints/last.ckpt", stored(), 0)
    run = _report.load_run(file)
    images, labels = _report.chosen(run, 20, "test")
    every, classes = run.examples()
    with torch.no_grad():
        costs = (run.net(every) - torch.eye(10)[classes]).square().sum(1)
    for label in range(10):
        own = (classes == label).nonzero().flatten()
        hard, first = own[costs[own].argmax()], own[0]
        assert torch.equal(images[labels == label], every[torch.stack([first, hard])])
