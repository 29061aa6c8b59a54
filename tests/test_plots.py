"""manualbp.plots: what is drawn are the numbers of the trace, and it can be read."""

from __future__ import annotations

import builtins
import copy
import math
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import network
from torch import Tensor, nn
from trained import save, stored

import manualbp
from manualbp import __main__, plots
from manualbp.commands._plot import KINDS, _parsed
from manualbp.see.plots import style

ROOT = Path(__file__).resolve().parents[1]
matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402


@pytest.fixture(scope="module")
def trace() -> manualbp.see.Trace:
    model, x, y, cost = network("document")
    with torch.no_grad():  # so that activations differ from example to example
        for p in model.parameters():
            p.mul_(3)
    return manualbp.trace(model, x, y, cost=cost)


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


def texts(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


def widths(ax: Axes) -> list[float]:
    return [bar.get_width() for bar in ax.patches]


def drawn(tile: Axes) -> Any:
    return tile.images[0].get_array()


# ------------------------------------------------------------------------------- a neuron


def test_the_images_of_a_neuron_are_its_weights_its_gradient_and_that_of_each_class(trace) -> None:
    tiles = plots.neuron(trace, 3)
    weight, grad = trace.parameters["1.weight"][3].detach(), trace.grads["1.weight"][3]
    classes = sorted(set(trace.y.tolist()))
    assert len(tiles) == 2 + len(classes)
    assert [t.get_title("left") for t in tiles[2:]] == [str(c) for c in classes]
    counts = [int((trace.y == c).sum()) for c in classes]
    assert [t.get_title("right") for t in tiles[2:]] == [f"n = {n}" for n in counts]
    shared = max(_class_mean(trace, c).abs().max() for c in classes)
    k = int(grad.abs().argmax())
    for c, mean in trace.explain("1.weight", 3, k).classes.items():
        assert float(_class_mean(trace, c)[k]) == pytest.approx(mean, rel=1e-12)
    expected = [(weight, weight.abs().max()), (-grad, grad.abs().max())]
    expected += [(-_class_mean(trace, c), shared) for c in classes]
    for tile, (values, limit) in zip(tiles, expected, strict=True):
        image = style.painted(values.reshape(28, 28), float(limit))
        assert (drawn(tile) == image).all()


def _class_mean(trace: Any, c: int) -> Tensor:
    delta = trace["1"].grad_output[:, 3] * trace.examples
    return (delta[:, None] * trace["1"].input)[trace.y == c].mean(0)


def test_a_negative_number_bears_a_minus_that_is_seen_without_colour() -> None:
    image = style.painted(torch.tensor([[1.0, -1.0], [0.5, 0.0]]), 1.0)
    assert image.shape == (20, 20, 4)
    grey = image[..., :3] @ [0.299, 0.587, 0.114]
    plus, minus, half, zero = grey[:10, :10], grey[:10, 10:], grey[10:, :10], grey[10:, 10:]
    assert plus.std() < 1e-9 and half.std() < 1e-9 and zero.min() > 0.99
    assert minus[5, 5] == pytest.approx(1.0) and minus[1, 5] < 0.5
    assert plus[0, 0] < half[0, 0] < zero[0, 0]


@pytest.mark.parametrize(
    ("model", "x", "shape"),
    [
        (nn.Sequential(nn.Linear(36, 3)), torch.rand(4, 36), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), torch.rand(4, 6, 4), None),
        (nn.Sequential(nn.Linear(24, 3)), torch.rand(4, 24), (4, 6)),
    ],
)
def test_where_y_are_no_classes_there_are_two_images(model, x, shape) -> None:
    trace = manualbp.trace(model, x, torch.rand(4, 3), cost=manualbp.nn.SquaredError())
    tiles = plots.neuron(trace, -1, shape=shape)
    height, width = shape or ((6, 6) if x.dim() == 2 else (6, 4))
    assert [drawn(t).shape for t in tiles] == [(10 * height, 10 * width, 4)] * 2


def refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
    assert not plt.get_fignums()  # no empty figure is left behind


def test_a_neuron_that_is_none_or_no_image_is_refused(trace) -> None:
    refused(lambda: plots.neuron(trace, 16), IndexError, "layer 1 has neurons 0 to 15, got 16")
    refused(lambda: plots.neuron(trace, 0, shape=(2, 3)), ValueError, "= 784, the inputs of layer")
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    y, cost = torch.tensor([0, 1]), nn.CrossEntropyLoss()
    traced = manualbp.trace(conv, torch.rand(2, 1, 4, 4), y, cost=cost)
    refused(lambda: plots.neuron(traced, 0), ValueError, "first layer with parameters is Conv2d 0")
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    traced = manualbp.trace(net, torch.rand(2, 3, 2, 2), y, cost=cost)
    refused(lambda: plots.neuron(traced, 0), ValueError, "no images of one channel; shape=(height")


# ------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("example", [None, 2])
def test_the_bars_are_the_products_and_their_sum(trace, example) -> None:
    found = trace.paths("2", 5, example=example)
    ax = plots.paths(found)
    numbers = found.to_dict()
    products = [row["product"] for row in numbers["rows"]]
    products.sort(key=lambda p: -abs(p))
    assert len(products) == 16
    assert widths(ax)[:-1] == pytest.approx(products, rel=1e-12)
    assert widths(ax)[-1] == pytest.approx(numbers["total"], rel=1e-9)
    starts = [bar.get_x() for bar in ax.patches]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert starts[1:-1] == pytest.approx(ends[:-2], abs=1e-15)
    assert (starts[0], starts[-1]) == (0, 0)
    for bar in ax.patches:  # told apart without colour
        assert (bar.get_facecolor()[:3] == (1, 1, 1)) == (bar.get_width() < 0)
        assert bar.get_edgecolor()[:3] == to_rgb(style.COST)
    said = texts(ax)
    assert {f"3[{j}]" for j in range(16)} <= {*said} and "sum" in said
    assert any(f"{style.number(numbers['total'])}; " in text for text in said)
    heads = {t.get_text().split("\n")[0]: t.get_color() for t in ax.texts}
    assert heads["wⱼₖ"] == style.WEIGHT and heads["∂C/∂aⱼ"] == style.COST


def test_of_many_paths_the_lightest_share_a_bar() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 2)).double()
    x, y = torch.rand(3, 4).double(), torch.rand(3, 2).double()
    found = manualbp.trace(model, x, y, cost=nn.MSELoss()).paths("0", 1)
    ax = plots.paths(found)
    assert len(ax.patches) == 24 + 1 + 1
    assert "16 more" in texts(ax)
    assert sum(widths(ax)[:-1]) == pytest.approx(float(found.total.mean()), rel=1e-9)
    refused_paths = manualbp.trace(model[:1], x, torch.rand(3, 3).double(), cost=nn.MSELoss())
    plt.close("all")
    refused(
        lambda: plots.paths(refused_paths.paths("0.weight", 1, 2)),
        TypeError,
        "expected the paths of an activation, trace.paths(layer, unit), got WeightPaths",
    )


# ------------------------------------------------------------------------------- vanishing


def test_the_steps_are_those_of_vanishing_by_w_and_by_slope(trace) -> None:
    found = trace.vanishing()
    ax = plots.vanishing(found)
    expected = [part for step in found.way for part in (step.weights, step.slope)]
    assert widths(ax) == pytest.approx(expected, abs=1e-12)
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, True] * len(found.way)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches][1::2]
    assert ends == pytest.approx([step.log for step in found.way], abs=1e-12)
    assert ax.patches[0].get_x() == pytest.approx(math.log10(found.start))
    said = texts(ax)
    assert [text for text in said if text in ("C", "5", "3", "1")] == ["C", "5", "3", "1"]
    for step in found.way:
        assert style.number(step.delta) in said and style.number(10**step.slope) in said
    assert f"× {style.number(10**found.change)} in all" in " ".join(said)


def test_where_nothing_comes_back_it_is_said(trace) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    dead = manualbp.trace(model, torch.rand(2, 4), torch.rand(2, 2), cost=nn.MSELoss())
    ax = plots.vanishing(dead.vanishing())
    assert "0" in texts(ax)
    assert all(math.isfinite(width) for width in widths(ax))
    plt.close("all")
    with torch.no_grad():
        target = model(torch.zeros(2, 4))
    still = manualbp.trace(model, torch.zeros(2, 4), target, cost=nn.MSELoss())
    refused(lambda: plots.vanishing(still.vanishing()), ValueError, "the cost sends no gradient")
    refused(lambda: plots.vanishing(trace), TypeError, "expected trace.vanishing(), got Trace")


def test_far_and_near_sizes_have_ticks() -> None:
    from manualbp.see.plots.bars import _log_ticks

    assert _log_ticks(-1.3, 0.1)[1] == ["0.1", "0.2", "0.5", "1"]
    assert _log_ticks(-30.5, 0.5)[1] == ["10⁻³⁰", "10⁻²⁴", "10⁻¹⁸", "10⁻¹²", "10⁻⁶", "10⁰"]


# ------------------------------------------------------------------------------- a nudge


def test_a_nudge_is_predicted_by_the_gradient_and_measured_by_the_model(trace) -> None:
    ax = plots.nudge(trace, "1.weight", 3, 400, by=0.5)
    lines = {line.get_label(): line for line in ax.lines}
    steps = lines["predicted"].get_xdata()
    grad = float(trace.grads["1.weight"][3, 400])
    assert (steps[0], steps[-1], len(steps)) == (-0.5, 0.5, 17)
    assert [*lines["predicted"].get_ydata()] == pytest.approx([grad * s for s in steps])
    for i in (0, 5, 8, 16):
        model = copy.deepcopy(trace.model)
        with torch.no_grad():
            model[1].weight[3, 400] += steps[i]
            expected = float(trace.function(model(trace.x), trace.y) - trace.cost)
        assert lines["measured"].get_ydata()[i] == pytest.approx(expected, abs=1e-13)
    assert lines["predicted"].get_linestyle() == "--" and lines["measured"].get_marker() == "o"
    named = {t.get_text().split("\n")[0]: t for t in ax.texts}
    assert named["measured"].get_color() == style.COST and "predicted" in named
    assert "1.weight[3, 400]" in ax.get_xlabel()


def test_a_nudge_leaves_buffers_and_random_numbers_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
    trace = manualbp.trace(model, torch.rand(8, 4), torch.rand(8, 2), cost=nn.MSELoss())
    before = {n: b.clone() for n, b in model.named_buffers()}
    state = torch.get_rng_state()
    plots.nudge(trace, "0.bias", 2)
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_nudge_of_nothing_is_refused(trace) -> None:
    refused(lambda: plots.nudge(trace, "1.wieght", 0, 0), KeyError, "near to it: 1.weight")
    refused(lambda: plots.nudge(trace, "1.weight", 99, 0), IndexError, "out of range of axis 0")
    refused(lambda: plots.nudge(trace, "1.bias", 0, by=0.0), ValueError, "by: expected a positive")


# ------------------------------------------------------------------------------- cosines


def test_cosines_are_those_between_the_gradients_sorted_by_class(trace) -> None:
    grads = manualbp.per_example_grads(trace.model, trace.x, trace.y, cost=trace.function)
    labels = torch.tensor([2, 0, 2, 0, 0, 1])
    ax = plots.cosines(grads, labels)
    order = [1, 3, 4, 5, 0, 2]
    rows = torch.stack([torch.cat([g[i].flatten() for g in grads.values()]) for i in order])
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    image = torch.from_numpy(drawn(ax))
    for i in range(6):
        for j in range(i):
            pixel = style.painted(expected[i, j].reshape(1, 1), 1.0, marks=1)[0, 0]
            assert image[i, j].tolist() == pytest.approx(pixel.tolist(), abs=0.01)
    within = (expected[:3, :3].sum() - 3) / 6
    between = expected[:3, 4:].mean()
    said = texts(ax)
    for mean in (within, between):
        assert style.signed(f"{float(mean):+.2f}") in said or abs(mean) < 0.005
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2"]
    assert [*ax.get_xticks()] == [1.5, 3.5, 5.0]
    plt.close("all")
    refused(lambda: plots.cosines(grads, labels[:5]), ValueError, "one for each of 6 examples")


def test_cosines_of_one_parameter_and_of_no_gradient() -> None:
    grads = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-2.0, 0.0]])
    ax = plots.cosines(grads, torch.tensor([0, 1, 2]))
    image = torch.from_numpy(drawn(ax))
    full, none = style.sign_map()(0.0), style.sign_map()(0.5)
    assert image[2, 0].tolist() == pytest.approx(full, abs=0.01)
    assert image[1, 0].tolist() == pytest.approx(none, abs=0.01)
    assert "−1.00" in texts(ax)


# ------------------------------------------------------------------------------- a run


def test_deltas_are_lines_with_marks_and_names() -> None:
    metrics = {"epoch": [0.0, 1.0, 2.0], "delta/1": [0.3, 0.2, 0.1], "delta/3": [0.3, 0.25, 0.11]}
    ax = plots.deltas(SimpleNamespace(metrics={**metrics, "val_cost": [1.0, 0.9, 0.8]}))
    assert [line.get_label() for line in ax.lines] == ["1", "3"]
    assert [*ax.lines[1].get_ydata()] == metrics["delta/3"]
    assert [*ax.lines[0].get_xdata()] == [1, 2, 3]
    assert len({line.get_marker() for line in ax.lines}) == 2
    assert texts(ax)[:2] == ["δ¹ of layer 1", "δ² of layer 3"]
    assert ax.get_yscale() == "log"
    low, high = (t.get_window_extent() for t in ax.texts[:2])
    assert not low.overlaps(high)
    plt.close("all")
    empty = SimpleNamespace(metrics={"epoch": [0.0], "val_cost": [1.0]})
    refused(lambda: plots.deltas(empty), ValueError, "it logged no δ; it has epoch, val_cost")


# ------------------------------------------------------------------------------- all of them


def pictures(trace: Any) -> dict[str, Any]:
    grads = manualbp.per_example_grads(trace.model, trace.x, trace.y, cost=trace.function)
    run = SimpleNamespace(metrics={"epoch": [0.0, 1.0], "delta/1": [0.3, 0.2]})
    return {
        "neuron": lambda ax: plots.neuron(trace, 0, ax=ax),
        "paths": lambda ax: plots.paths(trace.paths("2", 0), ax=ax),
        "vanishing": lambda ax: plots.vanishing(trace.vanishing(), ax=ax),
        "nudge": lambda ax: plots.nudge(trace, "1.bias", 0, ax=ax),
        "cosines": lambda ax: plots.cosines(grads, trace.y, ax=ax),
        "deltas": lambda ax: plots.deltas(run, ax=ax),
    }


def test_each_draws_into_given_axes_shows_nothing_and_changes_no_setting(trace, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("show was called"))
    assert {*pictures(trace)} == {*plots.__all__} - {"save"}
    before = dict(matplotlib.rcParams)
    figure, axes = plt.subplots(2, 3)
    for ax, (name, draw) in zip(axes.flat, pictures(trace).items(), strict=True):
        made = draw(ax)
        if name == "neuron":
            assert all(tile in ax.child_axes for tile in made)
        else:
            assert made is ax
    assert plt.get_fignums() == [figure.number]
    assert dict(matplotlib.rcParams) == before


def test_every_letter_is_in_the_font(trace) -> None:
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    known = FT2Font(findfont(FontProperties(family=style.RC["font.family"]))).get_charmap()
    for draw in pictures(trace).values():
        axes = draw(None)
        written = "".join(
            text.get_text() for text in style.figure_of(axes).findobj(matplotlib.text.Text)
        )
        assert [c for c in written if c != "\n" and ord(c) not in known] == []


STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "PDF": b"%PDF"}


@pytest.mark.parametrize("suffix", STARTS)
def test_a_picture_is_saved_the_same_twice_and_closed(trace, tmp_path, suffix) -> None:
    first, again = (
        plots.save(plots.vanishing(trace.vanishing()), tmp_path / f"new/{i}.{suffix}").read_bytes()
        for i in range(2)
    )
    assert first.startswith(STARTS[suffix]) and first == again
    assert not plt.get_fignums()


def test_a_file_of_another_kind_is_refused(trace, tmp_path) -> None:
    for name, had in (("a.jpg", "got .jpg"), ("a", "there is none")):
        with pytest.raises(ValueError, match=rf"ends in \.png, \.svg, \.pdf; {had}"):
            plots.save(plots.vanishing(trace.vanishing()), tmp_path / name)


def test_without_matplotlib_it_says_what_to_install(trace, monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'manualbp\[viz\]'"):
        plots.vanishing(trace.vanishing())
    assert "manualbp.see.plots" in sys.modules


def test_the_colours_of_symbols_are_told_apart_in_grey() -> None:
    def grey(colour: str) -> float:
        return sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(colour), strict=True))

    lights = sorted(map(grey, (style.COST, style.WEIGHT, style.BIAS, style.SUM, style.TARGET)))
    assert min(b - a for a, b in pairwise(lights)) > 0.05


def test_numbers_are_written_as_people_write_them() -> None:
    numbers = [0.0, -0.0123, 4.56e-7, 12345.6, 7.0, math.inf]
    assert [style.number(n) for n in numbers] == [
        "0",
        "−0.0123",
        "4.56 × 10⁻⁷",
        "12346",
        "7.00",
        "inf",
    ]
    assert style.column([1.0, -0.25, 0.001]) == (["1.00", "−0.25", "0.00"], 0)
    assert style.column([0.0012, -0.0005], "+") == (["+1.20", "−0.50"], -3)
    assert style.sizes([0.5, None, 2.0]) == ["0.500", "", "2.00"]
    assert style.sizes([1e-9, 2.0, 0.0]) == ["1.00 × 10⁻⁹", "2.00 × 10⁰", "0"]


# ------------------------------------------------------------------------------- the command


@pytest.fixture
def call(tmp_path, monkeypatch, capsys) -> Any:
    """Runs ``python -m manualbp plot`` where there is a run: exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/small/version_0"
    save(folder / "checkpoints/best.ckpt", stored(1, 0.9), 0)
    rows = ["delta/1,delta/4,epoch,val_cost", "0.5,0.25,0,1.5", "0.25,0.25,1,1.0"]
    (folder / "metrics.csv").write_text("\n".join(rows))

    def run(command: str) -> tuple[int, str, str]:
        status = __main__.main(["plot", *command.split()])
        return (status, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    "command",
    [
        "neuron 3",
        "small paths 2 5 --example 1",
        "runs/small vanishing --split val",
        "nudge 1.weight 3 407 --by 0.01",
        "cosines",
        "small deltas",
    ],
)
def test_the_command_writes_each_picture(call, tmp_path, command) -> None:
    status, out, err = call(f"{command} --examples 12 -o new/picture.svg")
    assert (status, err) == (0, "")
    assert out.startswith("new/picture.svg  ") and "784-6-10 tanh, sigmoid · mse" in out
    assert (tmp_path / "new/picture.svg").read_text().startswith("<?xml")
    assert ("deltas" in command) != (" examples" in out)


MISTAKES = {
    "": "which picture? neuron, paths, vanishing, nudge, cosines, deltas; as in: plot neuron 3",
    "small": "which picture of small? neuron, paths, vanishing, nudge, cosines, deltas",
    "nueron": "which picture of nueron? …; near to it: neuron",
    "small pahts 2 5": "there is no picture pahts; near to it: paths",
    "small zzz": "there is no picture zzz; neuron, paths, …",
    "neuron": "neuron: expected it as in: plot neuron 3",
    "vanishing 3": "vanishing 3: expected it as in: plot vanishing",
    "paths 2 x": "paths 2 x: expected whole numbers, as in: plot paths 2 5",
    "neuron 6": "neuron of runs/small/version_0: unit: layer 1 has neurons 0 to 5, got 6",
    "paths 9 5": "paths of runs/small/version_0: '9' is no layer that ran; …",
    "nudge 1.wieght 0 0": "nudge of …: '1.wieght' is no parameter; near to it: 1.weight…",
    "nudge 1.weight 0 0 --by 0": "nudge of …: by: expected a positive number, got 0.0",
    "deltas -o a.jpg": "--output a.jpg: expected a name that ends in .png, .svg, .pdf; got .jpg",
    "cosines --examples 0": "--examples is at least 1, got 0",
    "vanishing --split all": "split is train, val or test, got 'all'",
    "other vanishing": "there is no run other; near to it: …",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(call, command) -> None:
    status, out, err = call(command)
    said = ".*".join(re.escape(part) for part in MISTAKES[command].split("…"))
    assert (status, out) == (2, "")
    assert re.fullmatch(f"error: {said}\n", err), err


def test_the_command_says_what_is_missing(call, monkeypatch, tmp_path) -> None:
    def missing() -> Any:
        raise style.MissingMatplotlib

    monkeypatch.setattr("manualbp.commands._plot.pyplot", missing)
    message = "error: plots need matplotlib: pip install 'manualbp[viz]'\n"
    assert call("vanishing") == (2, "", message)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/small/version_0/metrics.csv").unlink()
    status, _, err = call("small deltas")
    assert status == 2 and err.endswith("No such file or directory; the run logged no metrics\n")
    wide = stored(1, 0.9, layers=[5, 6, 10])
    save(tmp_path / "runs/wide/version_0/checkpoints/best.ckpt", wide, 0)
    status, _, err = call("wide neuron 0")
    assert status == 2 and "takes 5 inputs, and a digit has 784 pixels; what can be" in err


PAGE = (ROOT / "docs/plots.md").read_text(encoding="utf-8")
SHOWN = re.findall(
    r"^\$ python -m manualbp plot (.*) -o docs/(.*)\n```\n\n!\[[^\]]+\]\((.*)\)", PAGE, re.M
)


def test_each_picture_of_the_page_stands_below_the_command_that_makes_it() -> None:
    assert all(target == picture for _, target, picture in SHOWN)
    assert [picture for *_, picture in SHOWN] == re.findall(r"\]\((.*\.png)\)", PAGE)
    assert {kind for command, *_ in SHOWN for kind in command.split()[:1]} == {*KINDS}
    for command, *_ in SHOWN:  # as the command takes it
        _parsed(command.partition(" -")[0].split())
