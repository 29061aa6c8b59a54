"""torch.compile, torch.export and torch.jit.trace make of our modules what they make of torch's."""

import copy

import pytest
import torch
from cases import MODULES
from properties import SHARP, random_like
from torch._dynamo.testing import CompileCounterWithBackend, EagerAndRecordGraphs
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from manualbp import Formula, functional, nn

RECURRENT = {"RNN", "LSTM", "GRU"}
CELLS = {"RNNCell", "LSTMCell", "GRUCell"}
IN_PYTHON = {
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerDecoderLayer",
    "TransformerDecoder",
    "Transformer",
}

pytestmark = [
    pytest.mark.slow,
    # torch's own, of its own modules too
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:The tensor attributes? self._flat_weights"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
    pytest.mark.filterwarnings("ignore:`torch.jit.trace"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


@pytest.fixture(autouse=True)
def anew():
    torch._dynamo.reset()


def rows(names):
    return [pytest.param(row, id=str(row)[:80]) for row in MODULES if row.name in names]


def tensors(tree):
    return [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


def run(function, module, inputs):
    """The outputs, and the gradients of the inputs and parameters, random numbers arriving."""
    torch.manual_seed(0)
    found = [t for t in tensors(function(*inputs)) if t.requires_grad]
    starts = [t for t in [*tensors(inputs), *module.parameters()] if t.requires_grad]
    above = [random_like(t) for t in found]
    return found, torch.autograd.grad(found, starts, above, allow_unused=True)


def formulas_in(graphs):
    return sum("autograd_function" in str(n.target) for g in graphs for n in g.graph.nodes)


@pytest.mark.parametrize("row", rows(IN_PYTHON | CELLS))
def test_it_is_traced_whole_by_formula(row):
    """As one graph, in which the formulas' own rules are."""
    module, twin, inputs = row.build(nn), row.build(torch.nn), row.make()
    backend = EagerAndRecordGraphs()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    found = run(compiled, module, inputs)
    assert formulas_in(backend.graphs)
    assert_close(found, run(module, module, inputs), **SHARP)
    assert_close(found, run(twin, twin, inputs), **SHARP)


def test_a_mask_does_not_break_the_graph():
    """Whether it is causal stands in its values; torch waits for them, and breaks its own."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0).double()
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.double)
    x = torch.randn(5, 2, 8, dtype=torch.double, requires_grad=True)
    for mask in (causal, torch.randn(5, 5, dtype=torch.double)):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert_close(run(compiled, module, (x, mask)), run(module, module, (x, mask)), **SHARP)


def test_a_function_of_one_s_own_may_break_the_graph():
    """Inside a layer that is traced by formula; what comes after is traced by formula again."""

    def activation(x):
        torch._dynamo.graph_break()
        return torch.tanh(x)

    module = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation).double()
    x = torch.randn(5, 2, 8, dtype=torch.double, requires_grad=True)
    backend = EagerAndRecordGraphs()
    found = run(torch.compile(module, backend=backend), module, (x,))
    assert_close(found, run(module, module, (x,)), **SHARP)
    assert formulas_in(backend.graphs[1:])


class Between(torch.nn.Module):
    """A layer that Dynamo does not trace, between two that it does."""

    def __init__(self, module, width, out):
        super().__init__()
        self.before = torch.nn.Linear(width, width).double()
        self.module = module
        self.after = torch.nn.Linear(out, 2).double()

    def forward(self, x, *more):
        return self.after(tensors(self.module(self.before(x), *more))[0])


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_a_recurrent_layer_runs_in_eager_mode(name):
    """Dynamo refuses torch's too; what ours calls is not compiled step by step."""
    counted = []
    for library in (torch.nn, nn):
        torch._dynamo.reset()
        torch.manual_seed(0)
        module = Between(getattr(library, name)(3, 4).double(), 3, 4)
        backend = CompileCounterWithBackend("aot_eager")
        x = torch.randn(5, 2, 3, dtype=torch.double, requires_grad=True)
        found = run(torch.compile(module, backend=backend), module, (x,))
        assert_close(found, run(module, module, (x,)), **SHARP)
        counted.append((backend.frame_count, backend.op_count))
    assert counted[0] == counted[1]


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_a_recurrent_layer_is_traced_where_torch_s_is(name):
    module = getattr(nn, name)(3, 4).double()
    x = torch.randn(2, 2, 3, dtype=torch.double, requires_grad=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert_close(run(compiled, module, (x,)), run(module, module, (x,)), **SHARP)


def test_adaptive_softmax_runs_in_eager_mode():
    """How many rows a cluster has is not known to Dynamo, of torch's neither."""
    module = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10]).double()
    x = torch.randn(6, 8, dtype=torch.double, requires_grad=True)
    target = torch.tensor([1, 2, 3, 6, 7, 18])
    backend = CompileCounterWithBackend("aot_eager")
    found = run(torch.compile(module, backend=backend), module, (x, target))
    assert_close(found, run(module, module, (x, target)), **SHARP)
    assert not backend.frame_count


# ---------------------------------------------------------------- torch.func inside torch.compile


class Reverse(Formula):
    """A rule that is not the derivative of the value, so that torch's own is another."""

    @staticmethod
    def forward(input):
        return input * 2

    @staticmethod
    def grad_input(g):
        return -3 * g


def drawn(*shape):
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(7))


W, B, FILTERS = drawn(5, 4), drawn(5), drawn(2, 3, 2, 2)
CLASSES = torch.tensor([1, 0, 3])
#: a function of one example, and the axes of that example
OF_ONE = {
    "linear": (lambda x: functional.linear(x, W, B), (4,)),
    "sigmoid": (functional.sigmoid, (4,)),
    "layer_norm": (lambda x: functional.layer_norm(x, (4,), W[0], W[1]), (4,)),
    "cross_entropy": (lambda x: functional.cross_entropy(x, CLASSES), (3, 4)),
    "conv2d": (lambda x: functional.conv2d(x, FILTERS), (1, 3, 4, 4)),
    "cat": (lambda x: functional.cat([x, functional.sin(x)]), (4,)),
    "whose rule is no derivative": (Reverse.apply, (4,)),
}


def weighted(f):
    def cost(x):
        a = f(x).square()
        return (a * torch.linspace(-1, 1, a.numel(), dtype=a.dtype).view_as(a)).sum()

    return cost


TRANSFORMS = {
    "vmap": lambda f: torch.vmap(f),
    "vmap of grad": lambda f: torch.vmap(torch.func.grad(weighted(f))),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x[0],), (x[1],)),
    "vmap of jvp": lambda f: torch.vmap(lambda x: torch.func.jvp(f, (x,), (x.cos(),))),
    "jacfwd": lambda f: lambda x: torch.func.jacfwd(f)(x[0]),
    "jacrev": lambda f: lambda x: torch.func.jacrev(f)(x[0]),
    "hessian": lambda f: lambda x: torch.func.hessian(weighted(f))(x[0]),
    "a dual number": lambda f: lambda x: dual(f, x[0], x[1]),
}


def dual(f, x, tangent):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, tangent)))


@pytest.mark.parametrize(
    ("name", "transform"),
    [(name, transform) for name in OF_ONE for transform in ("vmap", "vmap of grad", "jvp")]
    + [("whose rule is no derivative", transform) for transform in [*TRANSFORMS][3:]],
)
def test_transforms_are_traced_whole(name, transform):
    """By the formula's own rules, and once: a second call finds the program."""
    f, shape = OF_ONE[name]
    function = TRANSFORMS[transform](f)
    counted = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, backend=counted, fullgraph=True)
    for seed in range(2):
        x = drawn(3, *shape) + seed
        assert_close(tree_leaves(compiled(x)), tree_leaves(function(x)), **SHARP)
    assert counted.frame_count == 1


@pytest.mark.parametrize("name", OF_ONE)
def test_the_gradient_through_vmap_inside(name):
    """From outside of the program, of an input and of a weight."""
    f, shape = OF_ONE[name]
    x, scale = drawn(3, *shape).requires_grad_(), drawn().requires_grad_()
    function = torch.vmap(lambda x: f(x * scale))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    g = random_like(function(x))
    found, expected = (torch.autograd.grad(f(x), (x, scale), g) for f in (compiled, function))
    assert_close(found, expected, **SHARP)


@pytest.mark.parametrize("f", [functional.abs, functional.tanh])
def test_complex_numbers(f):
    z = torch.randn(3, dtype=torch.cdouble, requires_grad=True)
    output, expected = torch.compile(f, backend="aot_eager", fullgraph=True)(z), f(z)
    g = torch.randn_like(output)
    assert_close(torch.autograd.grad(output, z, g), torch.autograd.grad(expected, z, g), **SHARP)


def test_a_backward_written_by_hand_is_traced():
    class Clamped(Reverse):
        @staticmethod
        def forward(ctx, input):
            ctx.save_for_backward(input)
            return input * 2

        @staticmethod
        def backward(ctx, g):
            return (g * ctx.saved_tensors[0]).clamp(-1, 1)

    x = drawn(4).requires_grad_()
    backend = EagerAndRecordGraphs()
    output = torch.compile(Clamped.apply, backend=backend, fullgraph=True)(x)
    g = random_like(output)
    assert formulas_in(backend.graphs)
    assert_close(torch.autograd.grad(output, x, g)[0], (g * x).clamp(-1, 1), **SHARP)


# -------------------------------------------------------------------------------- export and trace


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("row", rows(RECURRENT | CELLS))
def test_an_exported_recurrent_layer_is_torch_s_operation(row, strict):
    module, twin, inputs = row.build(nn).eval(), row.build(torch.nn).eval(), row.make()
    graphs = [torch.export.export(m, tuple(inputs), strict=strict) for m in (module, twin)]
    targets = [[str(n.target) for n in g.graph.nodes if n.op == "call_function"] for g in graphs]
    assert targets[0] == targets[1]
    assert_close(graphs[0].module()(*inputs), module(*inputs), **SHARP)


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_a_traced_recurrent_layer_takes_any_number_of_steps(name):
    module = getattr(nn, name)(3, 4, 2, bidirectional=True).double()
    x, longer = torch.randn(5, 2, 3).double(), torch.randn(7, 3, 3).double()
    traced = torch.jit.trace(copy.deepcopy(module), (x,))
    for given in (x, longer):
        assert_close(traced(given), module(given), **SHARP)


# -------------------------------------------------------------------------------- nested tensors


def jagged(*rest):
    parts = [torch.randn(n, *rest, dtype=torch.double) for n in (3, 1, 4)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)


#: of the modules that torch runs and differentiates on jagged tensors of one and two axes more
JAGGED = ["Linear", "LayerNorm", "RMSNorm", "GELU", "Softmax", "Sigmoid", "Tanh", "Softmin"]
JAGGED += ["ReLU", "ELU", "SiLU", "Softplus", "CELU", "SELU", "ReLU6", "Hardtanh", "Hardshrink"]
JAGGED += ["Softshrink", "Tanhshrink", "Threshold", "Hardsigmoid", "Mish", "Softsign", "Dropout"]
JAGGED += ["Identity"]


@pytest.mark.parametrize("row", rows(JAGGED))
def test_jagged_tensors(row):
    """The value and gradients of torch, whose own derivative it is: no rule knows such tensors."""
    x = jagged(*row.make()[0].shape[1:])
    found = []
    for library in (torch.nn, nn):
        module = row.build(library)
        torch.manual_seed(0)
        output = module(x)
        g = torch.nested.nested_tensor_from_jagged(random_like(output.values()), output.offsets())
        pulled = torch.autograd.grad(output, [x, *module.parameters()], g)
        found.append([output.values(), pulled[0].values(), *pulled[1:]])
    assert_close(*found, **SHARP)
