"""Every sample on which PyTorch tests its own functions and modules, run by ours beside torch's."""

import copy
import inspect
import re

import pytest
import torch
import torch_samples
from agreement import coarse, disagreement, doubled, imprecision, outcome, refused_alike
from cases import of_torch

import manualbp
from manualbp import functional, nn

FUNCTIONS = {
    name: f
    for name, f in vars(functional).items()
    if inspect.isfunction(f) and not name.startswith("_")
}
MODULES = {name: m for name, m in vars(nn).items() if inspect.isclass(m)}
NAMES = [name for name in FUNCTIONS if of_torch(name)]

# Whether ours warns as torch does is the business of other tests; torch's samples often warn.
pytestmark = pytest.mark.filterwarnings("ignore")

#: function → what of a sample or of the difference names one that docs/differences.md explains
ON_PURPOSE = {
    **dict.fromkeys(("LPPool1d", "LPPool2d", "LPPool3d"), r"gradients.*nan"),
    "LinearCrossEntropyLoss": r"\n +(second|gradient: torch raises)",
    "celu": r"\n +gradients",
    "celu_": r"\n +gradients",
    "hardsigmoid": r"\n +gradients",
    "norm": r"nuc",
    "linear_cross_entropy": r"options=Linear.*\n +(second|gradient: torch raises|.*torch's own)",
    "scatter": r"reduce=",
    "softmin": r"uint8",
    **dict.fromkeys(("hardshrink", "hardtanh", "hardtanh_", "relu6"), r"nan in it.*\n +gradients"),
    "softshrink": r"nan in it.*\n +gradients",
    "prelu": r"weight=<float64 \[\].*\n +second",
    "remainder": r"remainder\(\d.*\n +gradient: torch raises",
}
#: functions whose derivatives by torch are nan in places where ours are not; see there too
NAN_IN_TORCH = {"elu", "elu_", "logaddexp", "mish", "pow", "selu", "selu_", "softsign"}


def on_a_copy(function):
    """A function that writes in place, of a copy that is no leaf."""
    return lambda input, *args, **kwargs: function(input.clone(), *args, **kwargs)


def compared(name, call):
    """How ours and torch's differ on a sample; None where they agree."""
    functions = FUNCTIONS[name], call.function
    mine, its = map(on_a_copy, functions) if name.endswith("_") else functions
    whole = not (call.dtype.is_floating_point or call.dtype.is_complex)
    if whole or not coarse((call.args, call.kwargs)):
        outcomes = (outcome(f, *call.fresh()) for f in (mine, its))
        return disagreement(*outcomes, at_nan=name not in NAN_IN_TORCH)
    how = {"order": 1, "rounded": call.dtype}
    ours, torchs = (outcome(f, *call.fresh(), **how) for f in (mine, its))
    return imprecision(ours, torchs, outcome(its, *doubled(call.fresh()), **how))


def check(name, calls):
    found = []
    for call in calls:
        if difference := compared(name, call):
            found.append(f"{call}\n    {difference}")
    report(unexpected(name, found))


def unexpected(name, found):
    return [f for f in found if name not in ON_PURPOSE or not re.search(ON_PURPOSE[name], f)]


def report(found):
    assert not found, f"{len(found)} samples differ:\n" + "\n".join(found[:5])


@pytest.mark.parametrize("name", NAMES)
def test_samples(name):
    """Value, gradient and second order in float64."""
    check(name, torch_samples.calls(of_torch(name), at_most=100))


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    """What torch refuses ours refuses, with an error of torch's type."""
    found = []
    for call in torch_samples.errors(of_torch(name)):
        if "out" in call.kwargs:
            continue  # nothing here writes into a given tensor
        ours, theirs = (outcome(f, *call.fresh()) for f in (FUNCTIONS[name], call.function))
        if theirs.error and (difference := refused_alike(ours, theirs)):
            found.append(f"{call}\n    {difference}")
    report(found)


def real(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


def pooled():
    x = real(2, 3, 4, 4).detach().to(memory_format=torch.channels_last)
    found, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    return found.requires_grad_(), indices, 2


#: what is in no table of torch's: a function, and its arguments
FURTHER = [
    *[("linear", lambda s=s: (real(2, 4, 3), real(5, 3), real(*s))) for s in ((4, 1), (8, 1))],
    *[("linear", lambda s=s: (real(2, 4, 3), real(5, 3), real(*s))) for s in ((1, 5), (4, 5))],
    *[("linear", lambda s=s: (real(2, 2, 4, 3), real(5, 3), real(*s))) for s in ((4, 1), (16, 1))],
    ("linear", lambda: (real(4, 2, 3).transpose(0, 1), real(5, 3), real(4, 1))),
    ("linear", lambda: (real(3), real(5, 3), real(1, 5))),
    *[("linear", lambda s=s: (real(4, 3), real(5, 3), real(*s).float())) for s in ((5,), (4, 1))],
    ("unfold", lambda: (real(1, 2, 5, 5), torch.Size([1]))),
    ("unfold", lambda: (real(1, 2, 5, 5), 2, 1, 0, (1,))),
    ("fold", lambda: (real(1, 8, 16), (5, 5), torch.Size([2]))),
    ("fold", lambda: (real(1, 8, 25), (5,), 1)),
    ("max_unpool2d", pooled),
    ("repeat", lambda: (real(0, 3), -1, 0)),
    ("repeat", lambda: (real(2, 3), -1, 0)),
    *[("take_along_dim", lambda d=d: (real(2, 3), torch.zeros(2, 3).to(d), 1)) for d in (
        torch.float, torch.int, torch.long)],
]  # fmt: skip


@pytest.mark.parametrize("name", sorted({name for name, _ in FURTHER}))
def test_further_samples(name):
    """Shapes, dtypes and options of no table; the values' strides too."""
    for number, (_, made) in enumerate(f for f in FURTHER if f[0] == name):
        torch.manual_seed(0)
        theirs = of_torch(name)
        call = torch_samples.Call(f"{name} #{number}", torch.double, theirs, made(), {})
        ours, its = (outcome(f, *call.fresh()) for f in (FUNCTIONS[name], theirs))
        assert not (difference := disagreement(ours, its)), f"{call}\n    {difference}"
        strides = ([v.stride() for v in o.values] for o in (ours, its))
        assert next(strides) == next(strides), call


HALF = (torch.bfloat16, torch.half)
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
#: further samples: a kind and a dtype
KINDS = [("noncontiguous", torch.double)]
KINDS += [("sample", dtype) for dtype in (torch.cdouble, torch.float, *HALF, *WHOLE)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), KINDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_sample(name, kind, dtype):
    """With gaps in memory, in the dtypes that torch's takes; of max_pool2d's 1,440 every tenth."""
    check(name, torch_samples.calls(of_torch(name), dtype, kind=kind, at_most=150))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_references(name):
    """The ends of the range, infinite and nan, empty, mixed dtypes: torch's larger set."""
    about = of_torch(name), torch.double
    check(name, torch_samples.calls(*about, kind="reference", at_most=30, largest=20_000))


def layer(module, sample, dtype, state=None):
    """A layer of a sample in evaluation or training mode, with the parameters of another."""
    torch.manual_seed(0)
    args, kwargs = copy.deepcopy((sample.constructor.args, sample.constructor.kwargs))
    with torch.random.fork_rng():
        made = module(*args, **kwargs)
    made = made.to(dtype)
    if state is not None:
        made.load_state_dict(state)
    return made


def compared_layers(name, sample, dtype, training):
    theirs = layer(getattr(torch.nn, name), sample, dtype).train(training)
    state = copy.deepcopy(theirs.state_dict())
    ours = layer(MODULES[name], sample, dtype, state).train(training)
    low = dtype is not torch.double
    how = {"order": 1, "rounded": dtype} if low else {}
    given = sample.forward.args, sample.forward.kwargs

    def run(module, args):
        return outcome(module, *args, more=tuple(module.parameters()), **how)

    mine, its = (run(module, torch_samples.fresh(given)) for module in (ours, theirs))
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    for (buffer, a), (_, b) in pairs:
        torch.testing.assert_close(a, b, msg=lambda m, n=buffer: f"{n}: {m}")
    if not low:
        return disagreement(mine, its)
    exact = layer(getattr(torch.nn, name), sample, dtype, state).train(training).double()
    return imprecision(mine, its, run(exact, doubled(torch_samples.fresh(given))))


#: samples of a layer, drawn evenly: LinearCrossEntropyLoss has 880, which took 24 s a dtype
MOST_LAYERS = 80


def check_layers(name, dtype):
    found = []
    for training in (True, False):
        made = [*torch_samples.layers(getattr(torch.nn, name), dtype, training=training)]
        for sample in made[:: -(-len(made) // MOST_LAYERS) or 1]:
            if difference := compared_layers(name, sample, dtype, training):
                found.append(f"{sample.entry}\n    {difference}")
    report(unexpected(name, found))


LAYERS = [name for name in MODULES if hasattr(torch.nn, name)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    """Values, gradients of inputs and parameters, second order, buffers, in float64."""
    check_layers(name, torch.double)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float, *HALF], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_other_dtypes(name, dtype):
    check_layers(name, dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_errors_of_layers(name):
    """What torch's refuses, when it is made or when it is called, ours refuses by its type."""
    theirs, found = getattr(torch.nn, name), []

    def made_and_called(module, sample):
        made = module(*sample.constructor.args, **sample.constructor.kwargs)
        given = sample.forward
        return made(*given.args, **given.kwargs) if given else torch.zeros(())

    for training in (True, False):
        for sample in torch_samples.layers(theirs, training=training, errors=True):
            outcomes = (outcome(made_and_called, (m, sample), {}) for m in (MODULES[name], theirs))
            ours, its = outcomes
            if its.error and (difference := refused_alike(ours, its)):
                found.append(f"{sample.entry}\n    {difference}")
    report(found)


def test_functions_of_others():
    """torch's own table of custom Functions: beside formulas, inside interception, as outside."""
    for info in torch_samples.tables().functions:
        for call in torch_samples.samples(info):

            def plain(*args, _f=call.function, **kwargs):
                found = _f(*args, **kwargs)
                found = found if isinstance(found, tuple) else (found,)
                return tuple(f.tanh() if f.is_floating_point() else f for f in found)

            ours = outcome(manualbp.intercept()(plain), *call.fresh())
            difference = disagreement(ours, outcome(plain, *call.fresh()))
            assert not difference, f"{call}\n    {difference}"
