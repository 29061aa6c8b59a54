"""manualbp.nn stands in for torch.nn: built, saved, loaded, copied, trained alike."""

import copy
import gzip
import inspect
import io
import pickle
from pathlib import Path

import pytest
import torch
from cases import MODULES
from properties import SHARP, random_like
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from manualbp import functional, nn
from manualbp.core.graph import formula_of, is_structural, nodes

MNIST = Path(__file__).parents[1] / "data" / "MNIST" / "raw"


@pytest.fixture(params=MODULES, ids=lambda row: str(row)[:80])
def row(request):
    return request.param


@pytest.fixture
def pair(row):
    """Ours and torch's, built alike from the same seed, and inputs for both."""
    return row.build(nn), row.build(torch.nn), row.make()


def outputs(module, inputs, **named):
    """Every tensor in what the module returns."""
    torch.manual_seed(0)
    return [t for t in tree_leaves(module(*inputs, **named)) if isinstance(t, torch.Tensor)]


def run(module, inputs):
    """The outputs, and the gradients of everything that has one, random numbers arriving."""
    found = outputs(module, inputs)
    ends = [t for t in found if t.requires_grad]
    starts = [t for t in tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.requires_grad]
    starts += module.parameters()
    if not ends:
        return found, ()
    above = [random_like(t) for t in ends]
    return found, torch.autograd.grad(ends, starts, above, allow_unused=True)


def test_every_module_is_here():
    """Lazy ones are built in test_convert.py."""
    modules = {name for name, m in vars(nn).items() if inspect.isclass(m)}
    modules = {name for name in modules if not name.startswith("Lazy")}
    missing = modules - {row.name for row in MODULES} - {"Sequential"}
    assert not missing, f"add a row, module('{min(missing)}', …), to MODULES in tests/cases/"


def test_a_layer_applied_twice_in_second_order():
    layer = nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(layer.weight, 1.0)
    net = nn.Sequential(layer, layer)
    x = torch.ones(1, 1, dtype=torch.double)
    (first,) = torch.autograd.grad(net(net(x)), [layer.weight], create_graph=True)
    (second,) = torch.autograd.grad(first, [layer.weight])
    assert (first.item(), second.item()) == (4.0, 12.0)  # of w⁴ at 1


def test_what_a_container_gave_may_be_written_over():
    net = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 3))
    net[0].requires_grad_(False)  # its weight's gradient would need h
    h = torch.randn(4, 3) @ torch.eye(3).requires_grad_()
    h += net(h)
    h.backward(torch.randn(4, 3))


def test_value_and_gradients(row, pair):
    """Twice: what a module keeps from call to call, running statistics say, is torch's too."""
    ours, theirs, inputs = pair
    for _ in range(2):
        compare(row, run(ours, inputs), run(theirs, inputs))
    assert_close(ours.state_dict(), theirs.state_dict(), **SHARP)


def test_in_evaluation(row, pair):
    ours, theirs, inputs = pair
    compare(row, run(ours.eval(), inputs), run(theirs.eval(), inputs))


def compare(row, ours, theirs):
    """Values and gradients, or values alone where torch's own gradient is the worse."""
    count = 1 if "same_gradient" in row.without else 2
    assert_close(ours[:count], theirs[:count], **SHARP)


def test_every_node_is_a_formula(pair):
    """Between the outputs and the inputs there is nothing of torch's but moves."""
    ours, _, inputs = pair
    ends = outputs(ours, inputs)  # which keep the graph alive
    for node in nodes(*(t.grad_fn for t in ends)):
        assert formula_of(node) or is_structural(node), node.name()


def test_no_more_is_kept_than_torch_keeps(row, pair):
    if "thrifty" in row.without:
        pytest.skip(row.without["thrifty"])
    ours, theirs, inputs = pair
    kept = []
    for module in (ours, theirs):
        saved = {}
        with saved_tensors_hooks(lambda t, s=saved: s.setdefault(t.data_ptr(), t), lambda t: t):
            outputs(module, inputs)
        kept.append(sum(t.nbytes for t in saved.values()))
    assert kept[0] <= kept[1]


def test_it_is_a_torch_module(row, pair):
    ours, theirs, _ = pair
    if not hasattr(torch.nn, row.name):
        pytest.skip("torch has no such module")
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)


def test_state_dict_loads_both_ways(pair):
    """Strictly, and the same initial values come from the same seed."""
    ours, theirs, _ = pair
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_copies_and_files(pair):
    """deepcopy, pickle and torch.save keep it what it is."""
    ours, _, inputs = pair
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), saved):
        assert type(again) is type(ours)
        assert_close(run(again, inputs), run(ours, inputs), rtol=0, atol=0)


def test_keyword_arguments_of_forward(pair):
    ours, theirs, inputs = pair
    named = dict(zip(inspect.signature(ours.forward).parameters, inputs, strict=False))
    assert_close(outputs(ours, (), **named), outputs(theirs, inputs), **SHARP)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_without_an_axis(name):
    x = torch.randn(4, 3)
    assert_close(getattr(nn, name)()(x), getattr(torch.nn, name)()(x))


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_the_warning_about_the_axis_points_at_the_caller(name):
    """As torch's does."""
    files = []
    for library in (torch.nn, nn):
        with pytest.warns(UserWarning, match="Implicit dimension choice") as caught:
            getattr(library, name)()(torch.randn(4, 3))
        files.append(caught[0].filename)
    assert files[0] == files[1]


@pytest.mark.parametrize("options", [{"device": "meta"}, {"dtype": torch.bfloat16}], ids=str)
def test_factory_arguments(options):
    layer = nn.Linear(3, 5, **options)
    twin = torch.nn.Linear(3, 5, **options)
    for mine, other in zip(layer.parameters(), twin.parameters(), strict=True):
        assert (mine.device, mine.dtype, mine.shape) == (other.device, other.dtype, other.shape)


def test_squared_error():
    """The document's: summed over outputs, averaged over examples, classes as good as e_y."""
    a, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    hot = torch.nn.functional.one_hot(y, 3).float()
    expected = sum((a[n, j] - hot[n, j]) ** 2 for n in range(4) for j in range(3)) / 4
    assert_close(nn.SquaredError()(a, y), expected)
    assert_close(nn.SquaredError()(a, hot), expected)
    assert_close(nn.SquaredError("sum")(a, y), 4 * expected)
    assert_close(nn.SquaredError("none")(a, y).mean(), expected)
    assert_close(nn.SquaredError()(a, hot), 3 * torch.nn.MSELoss()(a, hot))
    assert repr(nn.SquaredError()) == "SquaredError()"
    assert pickle.loads(pickle.dumps(nn.SquaredError("sum"))).reduction == "sum"
    with pytest.raises(ValueError, match="'none', 'mean' or 'sum'; got 'average'"):
        nn.SquaredError("average")


# ------------------------------------------------------------------------------------ training


def mixed(library):
    """A network of plain torch.nn modules, with some of `library` among them."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        library.ReLU(),
        torch.nn.Flatten(),
        library.Linear(4 * 6 * 6, 16),
        torch.nn.BatchNorm1d(16),
        library.GELU(),
        library.Dropout(0.1),
        library.Linear(16, 10),
        library.LogSoftmax(1),
    ).double()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "RMSprop"])
def test_training_inside_a_plain_torch_model(optimizer):
    """Ten steps of a torch optimizer: the same weights as with torch.nn's own layers."""
    torch.manual_seed(1)
    x, y = torch.randn(32, 1, 8, 8).double(), torch.randint(10, (32,))
    trained = []
    for library in (nn, torch.nn):
        net, cost = mixed(library), library.NLLLoss()
        descent = getattr(torch.optim, optimizer)(net.parameters(), lr=0.05)

        for _ in range(10):
            descent.zero_grad()
            cost(net(x), y).backward()
            descent.step()
        trained.append(net.state_dict())
    assert_close(*trained, rtol=1e-6, atol=1e-9)
    assert not torch.equal(trained[0]["3.weight"], mixed(nn).state_dict()["3.weight"])


def test_the_graph_names_the_formulas():
    """`out.grad_fn` is a formula, and behind it are the others."""
    out = torch.nn.Sequential(torch.nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))(
        torch.randn(5, 3)
    )
    assert out.grad_fn.name().startswith("Linear")
    names = [type(out.grad_fn).__name__, type(out.grad_fn.next_functions[0][0]).__name__]
    assert names == ["LinearBackward", "SigmoidBackward"]


def document_network(library):
    """The document's network: 784-16-16-10, sigmoid after every layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        library.Linear(784, 16),
        library.Sigmoid(),
        library.Linear(16, 16),
        library.Sigmoid(),
        library.Linear(16, 10),
        library.Sigmoid(),
    ).double()


def digits(part, count):
    """The first images of a part of MNIST, as pixels in [0, 1], and their classes."""
    read = []
    for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
        with gzip.open(MNIST / f"{part}-{kind}-ubyte.gz") as file:
            data = bytearray(file.read(header + count * size)[header:])
        read.append(torch.frombuffer(data, dtype=torch.uint8).reshape(count, size))
    return read[0].double() / 255, read[1].flatten().long()


@pytest.mark.skipif(not MNIST.is_dir(), reason="the repository's MNIST files are not here")
def test_the_document_network_on_a_hundred_digits():
    """Trained for a while, its gradients are autograd's on torch.nn's twin to 1e-12."""
    ours, theirs, cost = document_network(nn), document_network(torch.nn), nn.SquaredError()
    descent = torch.optim.SGD(ours.parameters(), lr=1.0)
    pixels, classes = digits("train", 1600)
    for _ in range(10):
        for x, y in zip(pixels.split(16), classes.split(16), strict=True):
            descent.zero_grad()
            cost(ours(x), y).backward()
            descent.step()

    pixels, classes = digits("t10k", 100)
    assert (ours(pixels).argmax(1) == classes).double().mean() > 0.5  # it has learnt something
    theirs.load_state_dict(ours.state_dict())
    ours.zero_grad()
    cost(ours(pixels), classes).backward()
    hot = torch.nn.functional.one_hot(classes, 10).double()
    (theirs(pixels) - hot).square().sum(1).mean().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad.abs().max() > 1e-4
        assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_compiled_and_per_example_gradients_of_a_network():
    """A whole network under torch.compile, and vmap(grad) of it through functional_call."""
    net, x = document_network(nn), torch.rand(3, 784).double()
    y = torch.tensor([0, 1, 2])

    def cost(parameters, x, y):
        return nn.SquaredError()(torch.func.functional_call(net, parameters, (x,)), y)

    parameters = {k: v.detach() for k, v in net.named_parameters()}
    each = torch.func.vmap(torch.func.grad(cost), (None, 0, 0))(parameters, x, y)
    nn.SquaredError()(net(x), y).backward()
    for name, p in net.named_parameters():
        assert_close(each[name].mean(0), p.grad, **SHARP)

    graph = torch.compile(net, backend="aot_eager", fullgraph=True)
    wanted = [p.grad for p in net.parameters()]
    found = torch.autograd.grad(nn.SquaredError()(graph(x), y), tuple(net.parameters()))
    assert_close(found, tuple(wanted), **SHARP)


# ---------------------------------------------------------------------------------- torch.func


def ensemble(library, row):
    """Two modules as one, on inputs of their own: outputs, and gradients from outside of vmap."""
    modules = [row.build(library, seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(modules)

    def call(parameters, buffers, inputs):
        output = torch.func.functional_call(modules[0], (parameters, buffers), inputs)
        return [t for t in tree_leaves(output) if is_real(t)]

    inputs = tuple(
        torch.stack([t.detach(), t.detach().flip(0)]).requires_grad_() if is_real(t) else t
        for t in row.make()
    )
    axes = tuple(0 if is_real(t) else None for t in inputs)
    torch.manual_seed(0)
    mapped = torch.vmap(call, (0, 0, axes), randomness="same")
    output = mapped(parameters, buffers, inputs)
    starts = [*parameters.values(), *filter(is_real, inputs)]
    above = [random_like(t) for t in output]
    return output, torch.autograd.grad(output, starts, above, allow_unused=True)


def is_real(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.filterwarnings("ignore")  # torch's own, about performance
def test_ensembles(row):
    """torch.func.stack_module_state, vmap and the gradient from outside, wherever torch's run."""
    if "ensembles" in row.without:
        pytest.skip(row.without["ensembles"])
    try:
        expected = ensemble(torch.nn, row)
    except Exception as error:
        pytest.skip(f"torch's does not run: {type(error).__name__}")
    compare(row, ensemble(nn, row), expected)


@pytest.mark.parametrize("name", ["index_select", "index_add", "index_copy", "index_fill"])
def test_an_index_without_axes_for_each_example(name):
    """One place of one example; torch's vmap repeats it along the axis, or raises."""
    x, source = torch.randn(2, 3, 5, 4, dtype=torch.double).requires_grad_().unbind()
    source, index = source[:, :1], torch.tensor(3)

    def call(library, x, source):
        more = {"index_select": (), "index_fill": (7.0,)}.get(name, (source,))
        return getattr(library, name)(x, 0, index, *more)

    output = torch.vmap(lambda x, s: call(functional, x, s))(x, source)
    expected = torch.stack([call(torch, *each) for each in zip(x, source, strict=True)])
    g = random_like(expected)
    assert_close(output, expected, **SHARP)
    found, wanted = (
        torch.autograd.grad(a, (x, source), g, allow_unused=True) for a in (output, expected)
    )
    assert_close(found, wanted, **SHARP)


def test_in_place_after_batch_norm_for_each_example():
    """vmap of grad, in evaluation."""
    found = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        layers = [library.Linear(3, 4), library.BatchNorm1d(4), library.ReLU(inplace=True)]
        net = torch.nn.Sequential(*layers).double().eval()
        parameters = {k: v.detach() for k, v in net.named_parameters()}

        def cost(parameters, x, net=net):
            state = (parameters, dict(net.named_buffers()))
            output = torch.func.functional_call(net, state, (x[None],))
            return (output * random_like(output)).sum()

        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        found.append(torch.vmap(torch.func.grad(cost), (None, 0))(parameters, x))
    assert_close(*found, **SHARP)
