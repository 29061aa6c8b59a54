"""What was forgotten is named: a formula without a row, a function with its own ideas."""

import inspect
import pkgutil
import re
from functools import cache
from importlib import import_module

import pytest
import torch
from cases import CASES, of_torch
from cases import MODULES as ROWS
from properties import PROPERTIES
from torch.utils._pytree import tree_leaves

import manualbp
from manualbp import Formula, formulas, functional, nn
from manualbp.core.graph import formula_of, nodes
from manualbp.verification.samples.table import TABLE

FORMULAS = {name: f for name, f in vars(formulas).items() if inspect.isclass(f)}
FUNCTIONS = {
    name: f
    for name, f in vars(functional).items()
    if inspect.isfunction(f) and not name.startswith("_")
}
MODULES = {name: m for name, m in vars(nn).items() if inspect.isclass(m)}

#: functions written in C++ whose docstring does not state the signature that they have → how
UNDOCUMENTED: dict[str, str] = {
    "scaled_dot_product_attention": "states it over several lines",
    **dict.fromkeys(("cosine_similarity", "pairwise_distance"), "writes 1e-08 as 1e-8"),
    **dict.fromkeys(
        ("lstm", "gru", "rnn_tanh", "rnn_relu"), "has no docstring, and two signatures"
    ),
    **dict.fromkeys(
        ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), "has no docstring"
    ),
    **dict.fromkeys(
        ("sum", "mean", "prod", "nansum", "max", "min", "median", "nanmedian"),
        "states the overload without an axis alone",
    ),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"), "leaves out the overloads with unbiased"
    ),
    **dict.fromkeys(("flip", "tile", "repeat"), "a tensor's method takes the numbers one by one"),
    **dict.fromkeys(
        ("clamp_max", "clamp_min", "index_fill", "masked_fill", "rsub"), "has no docstring"
    ),
    "scatter": "states the overload with a tensor alone",
    "true_divide": "calls input and other what they are not called",
    "vector_norm": "bears the name of its namespace",
    "conv_tbc": "its docstring states no signature",
    **dict.fromkeys(
        ("celu_", "elu_", "hardtanh_", "rrelu_"), "writes 1. and 1./8 for 1.0 and 0.125"
    ),
}


def test_every_twin_that_a_row_gives_is_its_own():
    """What torch lacks is compared with a twin of the row's, which may not be ours in disguise."""
    for case in CASES:
        if of_torch(case.ours.__name__) is None:
            output = case.call(case.theirs, *case.inputs())
            assert behind(output) <= {None}, f"{case.name}: the twin runs a formula"


def behind(output: torch.Tensor) -> set[type[Formula]]:
    """The formulas in the graph behind an output."""
    return {formula_of(node) for node in nodes(output.grad_fn)}


def exercised() -> set[type[Formula]]:
    """The formulas that some row runs, as its graph or tape says, not as the row does."""
    found = set()
    for case in CASES:
        found |= behind(case.call(case.ours, *case.inputs()))
        with manualbp.Tape() as tape:  # where a view is a formula too
            case.call(case.ours, *case.inputs())
        found |= {entry.formula for entry in tape}
    return found


def test_every_formula_has_a_row():
    missing = {f.__name__ for f in set(FORMULAS.values()) - exercised()}
    assert not missing, "no row of tests/cases/ runs them"


def test_every_formula_says_how_its_arguments_are_drawn():
    missing = set(FORMULAS.values()) - set(TABLE)
    assert not missing, "say it, below @of(formulas.…), in manualbp/verification/samples/"


def test_every_function_has_a_row():
    missing = set(FUNCTIONS) - {case.ours.__name__ for case in CASES}
    assert not missing, f"add a row, row('{min(missing)}', …), to CASES in tests/cases/"


def test_every_row_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert not {name for name in names if names.count(name) > 1}


def test_every_exception_names_a_property_and_a_reason():
    known = {holds.__name__ for holds in PROPERTIES}
    for case in CASES:
        assert set(case.without) <= known, case.name
        assert all(case.without.values()), case.name


def test_every_class_of_the_package_is_exported():
    """A formula or function that an __all__ forgets would escape all of the above."""
    stated = {f for f in everything_below(Formula) if f.__module__.startswith("manualbp.formulas.")}
    stated = {f for f in stated if "forward" in vars(f) and not is_family(f)}
    assert stated <= set(FORMULAS.values()), "add them to the __all__ of their file"
    for file in pkgutil.iter_modules(functional.__path__):
        module = import_module(f"manualbp.functional.{file.name}")
        for name, function in vars(module).items():
            if (
                inspect.isfunction(function)
                and function.__module__ == module.__name__
                and not name.startswith("_")
                and file.name not in ("_autocast", "_common", "_override")
            ):
                assert name in FUNCTIONS, f"add '{name}' to the __all__ of {module.__name__}"


def is_family(formula: type[Formula]) -> bool:
    return formula.__name__.startswith("_")


def everything_below(cls: type) -> set[type]:
    return {cls}.union(*map(everything_below, cls.__subclasses__())) - {Formula}


@pytest.mark.parametrize("name", FORMULAS)
class TestFormula:
    def test_the_docstring_is_mathematics(self, name):
        """First the value; after a blank line one ∂ line a rule, in the order of the methods."""
        lines = (inspect.getdoc(FORMULAS[name]) or "").splitlines()
        assert lines, f"{name} has no docstring"
        assert "=" in lines[0], f"{name}: the first line states the value"
        assert len(lines) > 2 and not lines[1], f"{name}: a blank line after the value"
        # grad_x = None is no rule: it says that there is no gradient.
        rules = [m for m, rule in vars(FORMULAS[name]).items() if m.startswith("grad_") and rule]
        stated = [line for line in lines[2:] if line.startswith("∂C/∂")]
        assert len(stated) == len(rules), f"{name}: rules {rules}, stated {stated}"
        assert stated == lines[2:], f"{name}: nothing but the rules"

    def test_the_rules_follow_the_arguments(self, name):
        """One order: of forward's arguments, of the methods, of the lines of the docstring."""
        formula = FORMULAS[name]
        arguments = list(inspect.signature(formula.forward).parameters)
        rules = [m.removeprefix("grad_") for m in vars(formula) if m.startswith("grad_")]
        assert rules == sorted(rules, key=arguments.index)

    def test_everything_is_annotated(self, name):
        formula = FORMULAS[name]
        for key, method in vars(formula).items():
            if not isinstance(method, staticmethod) or key == "apply":  # apply is derived
                continue
            if method.__func__.__module__ != formula.__module__:
                continue
            signature = inspect.signature(method.__func__)
            for parameter in signature.parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter}"
            assert signature.return_annotation is not signature.empty, name


@pytest.mark.parametrize("name", FUNCTIONS)
class TestFunction:
    def test_it_says_what_it_does(self, name):
        assert inspect.getdoc(FUNCTIONS[name])


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if of_torch(name)])
def test_the_signature_of_a_function_is_torch_s(name):
    """Names and order of the parameters, and their defaults where torch states them."""
    ours = inspect.signature(FUNCTIONS[name]).parameters.values()
    # Of max pooling the function of the plain name is a dispatcher.
    twin = of_torch(f"{name}_with_indices") or of_torch(name)
    try:
        theirs = inspect.signature(twin).parameters.values()
    except ValueError:  # written in C++: as torch documents it
        if name in UNDOCUMENTED:
            return
        stated = documented(name, twin)
        assert [(p.name, None if p.default is p.empty else str(p.default)) for p in ours] == stated
    else:
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def documented(name: str, twin) -> list[tuple[str, str | None]]:
    """The parameters, without `out`, and defaults in the first line of a C++ function's docs."""
    line = next(line for line in twin.__doc__.splitlines() if line.strip().startswith(f"{name}("))
    inside = re.match(r".*?\((.*?)\)\s*(->|$)", line.strip())[1]
    found = []
    for item in re.split(r",\s*(?![^(\[]*[)\]])", inside):
        parameter, _, default = item.partition("=")
        parameter = parameter.split(":")[0].strip()
        if parameter and parameter.lstrip("*") not in ("", "out"):
            found.append((parameter.lstrip("*"), default.strip().strip("'\"") or None))
    return found


def test_a_container_is_torch_s_own():
    assert nn.Sequential is torch.nn.Sequential


#: the modules that compute
COMPUTING = [name for name in MODULES if name != "Sequential"]


@pytest.mark.parametrize("name", [name for name in COMPUTING if hasattr(torch.nn, name)])
def test_a_module_is_torch_s_with_another_forward(name):
    """A subclass of its twin that overrides `forward`, with its arguments, and nothing else."""
    module, twin = MODULES[name], getattr(torch.nn, name)
    assert module.__bases__ == (twin,)
    added = {k for k in vars(module) if not (k.startswith("__") and k.endswith("__"))}
    assert added <= ({"forward", "cls_to_become"} if name.startswith("Lazy") else {"forward"})
    assert list(inspect.signature(module.forward).parameters) == list(
        inspect.signature(twin.forward).parameters
    )


@cache
def formulas_of_modules() -> dict[str, set[str]]:
    """The formulas that the rows of each module run, as the graphs say."""
    found: dict[str, set[str]] = {}
    for row in ROWS:
        outputs = tree_leaves(row.build(nn)(*row.make()))
        for output in (o for o in outputs if isinstance(o, torch.Tensor)):
            names = {f.__name__ for f in behind(output) if f is not None}
            found.setdefault(row.name, set()).update(names)
    return found


@pytest.mark.parametrize("name", COMPUTING)
def test_a_module_says_what_it_is(name):
    """Its twin, and the formula that runs in it, word for word; for `help(manualbp.nn.Linear)`."""
    said = " ".join((vars(MODULES[name])["__doc__"] or "").split("\n\n")[0].split())
    if hasattr(torch.nn, name):
        begins, before = rf"torch\.nn\.{name}( by formula:|:|,) ", "by formula: "
    else:
        begins, before = r"[^:]+: .* \(formulas\.", ": "
    assert re.match(begins, said) and said.endswith("."), f"'{said}' does not match '{begins}'"
    named = re.findall(r"formulas\.(\w+)", said)
    if named:
        assert set(named) <= set(FORMULAS)
        assert {*named} & formulas_of_modules()[name]
    stated = re.search(rf"{before}(.*?) \(formulas\.{named[0]}[,)]", said) if named else None
    if stated and name not in ("MultiheadAttention", "LinearCrossEntropyLoss"):  # of several
        value = (inspect.getdoc(FORMULAS[named[0]]) or "").splitlines()[0]
        assert stated[1] == " ".join(value.split())
    assert named or name.startswith("Lazy") or name in ("Flatten", "Identity", "Unflatten")


#: what torch.nn and torch.nn.functional can differentiate and manualbp does not → why
LEFT_OUT = {
    "CrossMapLRN2d": "an explicit Function already, torch's own; see LocalResponseNorm",
    "NLLLoss2d": "an old name of NLLLoss; torch warns if it is subclassed",
    "grouped_mm": "for CUDA alone, and bfloat16",
    "scaled_mm": "of 8-bit numbers: torch has no derivative of it either",
    "scaled_addmm": "of 8-bit numbers: torch has no derivative of it either",
    "scaled_addmm_": "of 8-bit numbers: torch has no derivative of it either",
    "scaled_grouped_mm": "of 8-bit numbers: torch has no derivative of it either",
}
#: bases, containers and wrappers, which compute nothing themselves
NO_LAYERS = {"Module", "Container", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}
NO_LAYERS |= {"DataParallel", "RNNBase", "RNNCellBase"}
#: of torch.nn.functional, without a derivative
NO_DERIVATIVE = {"one_hot", "assert_int_or_pair"}


def test_torch_nn_is_covered():
    """Every differentiable class and function is here, or left out for a reason."""
    theirs = torch.nn.functional
    classes = {
        name
        for name, c in vars(torch.nn).items()
        if inspect.isclass(c) and issubclass(c, torch.nn.Module)
    }
    functions = {
        name
        for name, f in vars(theirs).items()
        if callable(f)
        and not inspect.isclass(f)
        and not name.startswith("_")
        and getattr(f, "__module__", None) in (theirs.__name__, "torch", "torch._C._nn", None)
    }
    missing = (classes - set(MODULES) - NO_LAYERS) | (functions - set(FUNCTIONS) - NO_DERIVATIVE)
    assert missing - set(LEFT_OUT) == set()
    assert len(LEFT_OUT) <= 10 and all(LEFT_OUT.values())
    assert not set(LEFT_OUT) & (set(MODULES) | set(FUNCTIONS))


def test_the_version_is_stated_once():
    assert manualbp.__version__[0].isdigit()
