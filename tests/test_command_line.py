"""``python -m manualbp``: its answers, its exit status, and what it says of a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trained import save, stored

from manualbp import __main__, formulas
from manualbp.commands import arguments, drawn, line, loading
from manualbp.training.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")

OURS = """
import sys

import torch
from torch import nn
from torch.autograd import Function

import manualbp


class Product(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, g * x


class Doubled(Product):
    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, 2 * g * x


class Linear(manualbp.formulas.Linear):
    @staticmethod
    def grad_bias(delta):
        return -delta.sum(0)


class Other(manualbp.Formula):
    @staticmethod
    def forward(input):
        return input.relu()

    @staticmethod
    def grad_input(g, input):
        return g * (input > 0)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(4, width)

    def forward(self, x):
        return self.linear(x).tanh()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.by


class Config:
    pass


net = Net(5)
number = 3


def build_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def build_nothing(*, size=3):
    return size


def build_badly(**options):
    raise OSError("no weights")


def build_sized(width):
    return Net(width)


def power(x, p=2.0, mode="mean"):
    print("computing")
    return getattr(x.square() ** p, mode)()


def raises(x):
    raise ValueError("a mistake\\nand more")


class Round(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


def straight_through(x):
    return Round.apply(x)


def same(x=None):
    return x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which commands are run: with a file, and others that cannot be imported."""
    (tmp_path / "ours.py").write_text(OURS, encoding="utf-8")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "needs.py").write_text("import no_such_package\n")
    (tmp_path / "text.txt").write_text("words\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/models.py").write_text(OURS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    sys.modules.pop("package", None)


@pytest.fixture
def run(folder, capsys):
    """Runs a command line: its exit status, what it printed, and its errors."""

    def call(command: str, *more: str) -> tuple[int, str, str]:
        status = __main__.main([*command.split(), *more])
        return (status, *capsys.readouterr())

    return call


# ------------------------------------------------------------------------------- what is right


def test_a_wrong_function_is_called_wrong_in_the_first_line(run):
    status, out, err = run("verify ours.py:Doubled --input 4x3 --input 4x3")
    assert (status, err) == (1, "")
    assert out.splitlines()[0] == ("Doubled: the gradient is wrong [w]: is 2.000 × the derivative")


@pytest.mark.parametrize(
    "command",
    [
        "verify ours.py:Product --input 4x3 --input 4x3:float64",
        "verify package.models:Product --input 4x3 --input 3",
        "verify ours.py:build_model --input 2x3x4 --target 2:int64:3 --cost cross_entropy",
        "verify ours.py:build_model --input 2x3x4 --target 2x3 --cost torch.nn:MSELoss",
        "verify ours.py:build_sized(2) --input 2x4",
        "verify ours.py:Net(width=2) --input 2x4",
        "verify ours.py:net --input 2x4",
        "verify ours.py:Scale --input 2x4",
        "verify ours.py:same --input 3",
        "verify ours.py:Product.apply --input 3 --input scalar",
        "verify ours.py:straight_through --input 4 --surrogate ours.py:same",
        "verify torch:sin --input 4 --reference torch:sin",
        "verify linear --input 4x3 --input 5x3 --input none",
        "verify Abs --samples 1",
    ],
)
def test_what_is_right_is_called_right(run, command):
    status, out, _ = run(command)
    assert (status, out.splitlines()[0].split(": ")[1].split(" in ")[0]) == (0, "right"), out


@pytest.mark.parametrize(
    "command",
    [
        "verify ours.py:straight_through --input 4",
        "verify torch:sin --input 4 --reference torch:cos",
        "verify ours.py:Linear --samples 1 --seed 1",  # of a subclass the arguments are drawn
    ],
)
def test_what_is_wrong_is_called_wrong(run, command):
    status, out, _ = run(command)
    assert status == 1
    assert "the gradient is wrong" in out.splitlines()[0]


def test_json_is_all_that_is_printed(run):
    status, out, err = run("verify ours.py:power --input 4 --input 2.0 --input =sum --json")
    report = json.loads(out)
    assert (status, report["ok"], report["subject"]) == (0, True, "power")
    assert "computing" in err
    status, out, _ = run("verify ours.py:Doubled --json --input 4 --input 4")
    assert (status, json.loads(out)["findings"][0]["argument"]) == (1, "w")
    status, out, _ = run("verify Abs Neg --samples 1 --json")
    several = json.loads(out)
    assert (status, several["ok"]) == (0, True)
    assert [report["subject"] for report in several["reports"]] == ["Abs", "Neg"]


@pytest.mark.slow
def test_several_formulas_are_a_table_and_a_summary(run):
    status, out, _ = run("verify Abs ReLU mse_loss Conv2d --samples 1")
    lines = out.splitlines()
    assert status == 0
    assert [row.split()[0] for row in lines[1:5]] == ["Abs", "ReLU", "MSE", "Conv"]
    assert all(row.endswith("  right") for row in lines[1:5])
    assert re.fullmatch(r"all 4 are right: [\d,]+ comparisons, \d+ s", lines[-1])


def test_a_wrong_one_among_several_is_told_with_its_seed(run):
    status, out, _ = run("verify Abs ours.py:Linear --samples 2 --seed 1")
    assert status == 1
    assert "is right" not in out
    assert re.search(r"^Linear .*wrong \[bias\].*sign.*\(arguments of seed [12]\)", out, re.M), out
    assert "1 of 2 are not right: Linear; " in out.splitlines()[-1]


@pytest.mark.slow
def test_the_same_seed_draws_the_same(run):
    first, again, other = (
        json.loads(run(f"verify ours.py:Doubled --input 3 --input 3 --json --seed {seed}")[1])
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first["checks"] != other["checks"]


@pytest.mark.slow
def test_processes_find_what_one_finds(monkeypatch):
    monkeypatch.setattr(drawn, "STARTUP", 1)
    some = {name: getattr(formulas, name) for name in ("Neg", "Abs")}
    one, two = (drawn.verify_drawn(some, range(1), jobs) for jobs in (1, 2))
    assert [report.verdict for report in one] == [report.verdict for report in two]
    assert [report.subject for report in two] == [*some]


# ------------------------------------------------------------------------------- what is not run

NOT_RUN = {
    "verfy": "there is no command verfy; near to it: verify",
    "zzz": "there is no command zzz; python -m manualbp --help lists them",
    "verify --inptu 3": "there is no option --inptu; near to it: --input…",
    "verify Linear --seed x": "--seed: Expected a int. Got value: x",
    "verify Linear --samples 0": "--samples and --jobs are at least 1",
    "verify Linear --input": "argument --input: expected one argument",
    "verify Linaer": "no formula is called Linaer; near to it: Linear, Bilinear, Lerp",
    "verify zzz": "no formula is called zzz; python -m manualbp formulas has all",
    "verify --input 3": "--input: whose? name a formula, or FILE.py:NAME",
    "verify Abs --surrogate ours.py:same": (
        "--reference and --surrogate are of --input: give its arguments"
    ),
    "verify nuors.py:Product": "there is no file nuors.py; near to it: ours.py…",
    "verify folder/none.py:Product": "there is no file folder/none.py",
    "verify ours.py:Prodcut": "ours.py has no Prodcut; near to it: Product",
    "verify ours.py:net.zzz": "ours.py:net has no zzz",
    "verify ours.py:zzz": "ours.py has no zzz; it has Product, Doubled, Linear, …",
    "verify ours.py": "ours.py: which name in it? Product, Doubled, …, as in ours.py:NAME",
    "verify torch.nn.functional.gelu": (
        "there is no module torch.nn.functional.gelu, in this folder or installed; of a file "
        "write path/to/file.py:NAME"
    ),
    "verify exits.py:f": "exits.py cannot be imported: SystemExit: 0 (exits.py:2)",
    "verify broken.py:f": "broken.py cannot be imported: SyntaxError: …(broken.py, line 1)",
    "verify needs.py:f": (
        "needs.py cannot be imported: ModuleNotFoundError: No module named 'no_such_package' "
        "(needs.py:1)"
    ),
    "verify ./text.txt:f": "./text.txt is not a file of Python: expected path/to/file.py:NAME",
    "verify ours.py:number --input 3": (
        "ours.py:number is of int: expected a Function, a module or a function"
    ),
    "verify ours.py:Config --input 3": (
        "ours.py:Config is a class, but neither a Function nor a module"
    ),
    "verify ours.py:Net --input 3": (
        "Net(width) needs arguments: write them, as in 'ours.py:Net(...)'"
    ),
    "verify ours.py:Net(x) --input 3": (
        "ours.py:Net(x): expected numbers, strings or lists in the brackets"
    ),
    "verify ours.py:Net(1,2,3) --input 3": "ours.py:Net(1,2,3) raises TypeError: …",
    "verify ours.py:build_nothing --input 3": (
        "build_nothing() returns a value of int: expected it to take inputs, or to return a module "
        "or a Function"
    ),
    "verify ours.py:build_badly --input 3": (
        "build_badly() raises OSError: no weights (ours.py:…)"
    ),
    "verify ours.py:Product": (
        "ours.py:Product: on which arguments? It takes (x, w): give --input for each, as in "
        "--input 4x3"
    ),
    "verify ours.py:Other": "ours.py:Other: on which arguments? It takes (input): …",
    "verify ours.py:power": (
        "ours.py:power: on which arguments? It takes (x, p=2.0, mode='mean'): …"
    ),
    "verify ours.py:Product --input 3": (
        "ours.py:Product takes (x, w), but was given 1 input: give --input once for each"
    ),
    "verify ours.py:Product --input 3 --input 4": (
        "ours.py:Product could not be run on (float32 3, float32 4): RuntimeError: The size of …"
    ),
    "verify ours.py:raises --input 3": (
        "ours.py:raises could not be run on (float32 3): ValueError: a mistake (ours.py:…); is "
        "each argument as it expects? --input gives it"
    ),
    "verify ours.py:same --input 3:int64": "ours.py:same could not be run on (int64 3): …",
    "verify ours.py:net --input 3 --target 3": (
        "--target without --cost: cost(model(inputs), target) is verified"
    ),
    "verify ours.py:net --input 3 --cost mse_loss": (
        "--cost without --target: cost(model(inputs), target) is verified"
    ),
    "verify ours.py:net --input 4 --target 5 --cost mse_los": (
        "--cost mse_los: expected a name in torch.nn.functional (near to it: mse_loss…), or "
        "FILE:NAME"
    ),
    "verify ours.py:net --input 4 --target 5 --cost MSELoss": (
        "--cost MSELoss is a class of torch.nn: write --cost torch.nn:MSELoss"
    ),
    "verify Abs --input 4y3": (
        "--input 4y3: expected a shape (4x3, 4x3:float64, 2:int64:10, scalar) or a value (none, "
        "true, =3, =0.5, =mean)"
    ),
    "verify Abs --input 4x3:flaot64": (
        "--input 4x3:flaot64: torch has no dtype flaot64; near to it: float64, …"
    ),
    "verify Abs --input 3:float32:9": (
        "--input 3:float32:9: a largest value is for whole numbers; leave out :9"
    ),
    "verify Abs --input 3:uint8:900": (
        "--input 3:uint8:900: expected a number from 1 to 255 after torch.uint8:"
    ),
    "verify Abs --input 99999999x99999999999": (
        "--input 99999999x99999999999: does not fit into memory; give a smaller shape"
    ),
    "formulas Sofmtax": "no formula is called Sofmtax; near to it: Softmax, …",
}


@pytest.mark.parametrize("command", NOT_RUN)
def test_what_cannot_be_run_is_one_line_and_status_2(run, command):
    status, out, err = run(command)
    assert (status, out) == (2, "")
    said = ".*".join(re.escape(part) for part in NOT_RUN[command].split("…"))
    assert re.fullmatch(f"error: {said}\n", err), err


def test_without_its_packages_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "find_spec", lambda name: None if name == "rich" else name)
    assert __main__.main(["verify"]) == 2
    assert capsys.readouterr().err == (
        "error: the command line needs rich: pip install 'manualbp[cli]'\n"
    )


def test_interrupted_it_ends_without_a_traceback(run, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drawn, "verify_sample", interrupted)
    assert run("verify Abs") == (130, "", "interrupted\n")


# ------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("text", "dtype", "shape"),
    [
        ("4x3", torch.float32, (4, 3)),
        ("4×3:double", torch.float64, (4, 3)),
        ("0x3:bfloat16", torch.bfloat16, (0, 3)),
        ("scalar:complex64", torch.complex64, ()),
        ("100:int64:3", torch.int64, (100,)),
        ("100:uint8", torch.uint8, (100,)),
        ("7:bool", torch.bool, (7,)),
    ],
)
def test_shapes_make_tensors(text, dtype, shape):
    found, again = (arguments.make(text, torch.Generator().manual_seed(0)) for _ in range(2))
    assert (found.dtype, tuple(found.shape)) == (dtype, shape)
    assert torch.equal(found, again)
    if text == "100:int64:3":
        assert found.unique().tolist() == [0, 1, 2]
    if text == "4x3":
        assert (found < 0).any()
        assert (found > 0).any()


def test_values_are_no_tensors():
    texts = [
        "none",
        "True",
        "false",
        "0.5",
        "-1e-3",
        "=3",
        "=(2, 2)",
        "=mean",
        "='3'",
        "=None",
        "=",
    ]
    expected = [None, True, False, 0.5, -0.001, 3, (2, 2), "mean", "3", None, ""]
    assert [arguments.make(text, torch.Generator()) for text in texts] == expected


def test_a_file_may_import_what_lies_beside_it_and_is_imported_once(folder):
    (folder / "beside.py").write_text("from ours import Product as P\nmade = []\n")
    assert loading.subject("beside.py:P") is loading.subject("ours.py:Product")
    (folder / "json.py").write_text("def f(x):\n    return x\n")  # the name of another module
    assert loading.subject("json.py:f")(3) == 3
    with pytest.raises(UserError, match="has no P2"):
        loading.subject("beside.py:P2")


# ------------------------------------------------------------------------------- formulas


def test_formulas_are_listed_one_a_line(run):
    status, out, _ = run("formulas")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, len({line.split()[0] for line in lines}))
    assert re.search(r"^Linear +z = a Wᵀ \+ b$", out, re.M)
    assert "\x1b" not in out


def test_a_formula_is_its_value_its_gradients_and_what_each_keeps(run):
    _, out, _ = run("formulas LINEAR Cat Add")
    linear, cat, add = out.split("\n\n")
    assert linear.splitlines()[1:] == [
        "  z = a Wᵀ + b",
        "  input   ∂C/∂a = δ W    keeps weight",
        "  weight  ∂C/∂W = δᵀ a   keeps input",
        "  bias    ∂C/∂b = Σₙ δₙ  keeps nothing",
    ]
    assert line_at(linear) == "class Linear(Formula):"
    assert cat.splitlines()[2].startswith("  *tensors  ∂C/∂z")
    assert add.splitlines()[2].endswith("keeps its shape")


def test_any_formula_can_be_printed(run):
    names = [line.split()[0] for line in run("formulas")[1].splitlines()][::5]
    status, out, _ = run("formulas", *names)
    assert (status, len(out.split("\n\n"))) == (0, len(names))
    for name, said in zip(names, out.split("\n\n"), strict=True):
        assert re.match(rf"class {name}\(|@_pointwise\(", line_at(said)), said


def line_at(said: str) -> str:
    """The line of code at the place that the first line of a formula's text names."""
    file, number = said.splitlines()[0].split("  ")[1].rsplit(":", 1)
    return Path(file).read_text(encoding="utf-8").splitlines()[int(number) - 1]


# ------------------------------------------------------------------------------- screens


@pytest.mark.parametrize("name", ["", *line.commands()])
def test_help_fits_a_screen(run, name):
    status, out, _ = run(f"{name} --help")
    lines = out.splitlines()
    assert (status, len(lines) < 24) == (0, True)
    assert [line for line in lines if len(line) > 80] == []
    assert name in lines[0]


def test_without_a_command_it_prints_the_help(run):
    assert run("") == run("--help")


@pytest.mark.slow
def test_on_a_terminal_it_has_colours_and_a_bar_and_keeps_to_the_width(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    status, out, err = run("verify Abs ours.py:Linear --samples 1 --seed 1")
    assert status == 1
    assert "\x1b[31m" in out
    assert "2/2" in err
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert [row for row in plain.split("\n\n")[0].splitlines() if len(row) > 60] == []


@pytest.mark.slow
def test_it_is_called_from_a_shell():
    command = [sys.executable, "-m", "manualbp", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("usage: python -m manualbp COMMAND [options]")


@pytest.mark.slow
def test_it_ends_where_nobody_reads_on():
    """As of ``| head``; and in an encoding that has no σ."""
    command = [sys.executable, "-m", "manualbp"]
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    pipe = subprocess.Popen(
        [*command, "formulas"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert pipe.stdout
    assert pipe.stderr
    pipe.stdout.close()
    said = pipe.stderr.read()
    pipe.stderr.close()
    assert (pipe.wait(), said) == (141, b"")


# ------------------------------------------------------------------------------- the page

BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)
SHOWN = [
    (command, shown)
    for block in BLOCKS
    for command, shown in re.findall(
        r"^\$ python -m manualbp (.*)\n((?:(?!\$ ).*\n)*)", block, re.M
    )
]


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_page_shows_what_is_printed(run, folder, command, shown):
    for code in re.findall(r"^```python\n# (swish\.py.*?)^```", PAGE, re.M | re.S):
        (folder / "swish.py").write_text(f"# {code}", encoding="utf-8")
    torch.manual_seed(0)
    theirs = {"layers": [784, 16, 16, 10], "activation": "sigmoid", "cost": "squared_error"}
    theirs["dropout"] = 0.0
    for name, epoch in (("best", 26), ("last", 29)):
        file = folder / f"runs/3b1b/version_0/checkpoints/{name}.ckpt"
        save(file, stored(epoch, 0.9536, **theirs), 0)
    _, out, err = run(command)
    expected = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    assert re.fullmatch(expected, (out + err).strip(), re.S), out + err
