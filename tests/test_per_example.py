"""One gradient for each example: what a loop over the examples gives, and without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import manualbp

Case = tuple[nn.Module, Any, Any, Callable[..., Tensor]]


class Own(nn.Module):
    """A model of a function and the parameters that it names."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.function = function

    def forward(self, *x: Any) -> Tensor:
        return self.function(self, *x)


def mse(output: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(output, y)


def of(*layers: nn.Module, x: Tensor, cost: Callable[..., Tensor] = mse) -> Callable[[], Case]:
    """The layers in sequence, and targets drawn in the shape of their output."""

    def make() -> Case:
        model = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        model = copy.deepcopy(model).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p) / 2)
        first = (lambda o, y: cost(o[0], y)) if isinstance(model(x), tuple) else cost
        output = model(x)
        output = output[0] if isinstance(output, tuple) else output
        return model, x, torch.randn_like(output), first

    return make


def own(function: Callable[..., Tensor], x: Tensor, **parts: Any) -> Callable[[], Case]:
    return of(Own(function, **parts), x=x)


def r(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.double, generator=generator)


def whole(below: int, *shape: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(below))


def tied() -> nn.Module:
    one = nn.Linear(5, 5)
    return nn.Sequential(one, nn.Tanh(), one, nn.Tanh(), nn.Linear(5, 5))


def frozen() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    net[0].weight.requires_grad_(False)
    return net


class Words(nn.Module):
    """A table whose transpose is the last layer, and learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 6, padding_idx=0), nn.Embedding(5, 6)
        self.mix = nn.Linear(6, 6)

    def forward(self, index: Tensor) -> Tensor:
        x = self.tokens(index) + self.places(torch.arange(index.shape[1]))
        return torch.tanh(self.mix(x)) @ self.tokens.weight.T


class Attentive(nn.Module):
    def __init__(self, batch_first: bool, weights: bool = True, **options: Any) -> None:
        super().__init__()
        self.first, self.weights = batch_first, weights
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.transpose(0, 1)
        z = self.attention(x, x, x, need_weights=self.weights)[0]
        return z if self.first else z.transpose(0, 1)


class Sorted(nn.Module):
    """Sequences of several lengths, packed in the order of their lengths."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, :, 0] > -0.5).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        h = self.layer(packed)[1]
        return torch.cat([*h[0]] if isinstance(h, tuple) else [*h], 1)


def transposed(layer: nn.Module) -> nn.Module:
    return Own(lambda m, x: m.layer(x.transpose(0, 1))[0].transpose(0, 1), layer=layer)


ENCODER = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
LAST = nn.TransformerEncoderLayer(6, 2, 8, 0.0, norm_first=True)

CASES: dict[str, Callable[[], Case]] = {
    "linear": of(nn.Linear(5, 3), x=r(4, 5)),
    "linear without bias": of(nn.Linear(5, 3, bias=False), x=r(4, 5)),
    "linear of sequences": of(nn.Linear(5, 3), x=r(4, 6, 5)),
    "linear of long sequences": of(nn.Linear(5, 3), x=r(4, 2, 12, 5)),
    "linear of time first": own(
        lambda m, x: m.f(x.transpose(0, 1)).transpose(0, 1), r(4, 6, 5), f=nn.Linear(5, 3)
    ),
    "linear of flattened rows": own(
        lambda m, x: m.f(x.reshape(-1, 5)).reshape(-1, 6, 3), r(4, 6, 5), f=nn.Linear(5, 3)
    ),
    "linear of flattened rows, time first": own(
        lambda m, x: m.f(x.transpose(0, 1).reshape(-1, 5)).reshape(6, -1, 3).transpose(0, 1),
        r(4, 6, 5),
        f=nn.Linear(5, 3),
    ),
    "deep": of(
        nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3), x=r(4, 5)
    ),
    "one example": of(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3), x=r(1, 5)),
    "many examples": of(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2), x=r(90, 3)),
    "as many examples as features": of(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), x=r(4, 4)),
    "bilinear": own(lambda m, x: m.f(x, x * 2), r(4, 3), f=nn.Bilinear(3, 3, 2)),
    "bilinear of sequences": own(lambda m, x: m.f(x, x.tanh()), r(4, 5, 3), f=nn.Bilinear(3, 3, 2)),
    "conv1d": of(nn.Conv1d(3, 4, 3, stride=2, padding=1), x=r(4, 3, 7)),
    "conv2d": of(nn.Conv2d(2, 3, 3), x=r(4, 2, 6, 5)),
    "conv2d of few positions": of(nn.Conv2d(6, 8, 3), x=r(4, 6, 4, 3)),
    "conv2d, all options": of(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        x=r(3, 4, 6, 5),
    ),
    "conv2d, depthwise": of(nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), x=r(3, 4, 5, 5)),
    "conv2d, circular": of(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), x=r(3, 2, 5, 4)),
    "conv2d, reflected": of(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), x=r(3, 2, 5, 4)),
    "conv2d, same": of(nn.Conv2d(2, 3, (3, 5), padding="same", dilation=2), x=r(3, 2, 5, 4)),
    "conv2d of several pictures": own(
        lambda m, x: m.f(x.flatten(0, 1)).unflatten(0, (-1, 2)),
        r(3, 2, 2, 5, 4),
        f=nn.Conv2d(2, 3, 3),
    ),
    "conv3d": of(nn.Conv3d(2, 3, 2), x=r(3, 2, 3, 4, 3)),
    "conv_transpose1d": of(nn.ConvTranspose1d(3, 2, 3, stride=2), x=r(4, 3, 5)),
    "conv_transpose2d": of(
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        x=r(3, 4, 4, 3),
    ),
    "conv_transpose3d": of(nn.ConvTranspose3d(2, 3, 2), x=r(3, 2, 3, 2, 3)),
    "layer_norm": of(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), x=r(4, 5)),
    "layer_norm of sequences": of(nn.Linear(5, 6), nn.LayerNorm((3, 6)), x=r(4, 2, 3, 5)),
    "rms_norm": of(nn.Linear(5, 6), nn.RMSNorm(6), nn.Tanh(), x=r(4, 3, 5)),
    "group_norm": of(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), x=r(4, 2, 4, 4)),
    "group_norm of rows": of(nn.Linear(5, 6), nn.GroupNorm(2, 6), x=r(4, 5)),
    "instance_norm": of(nn.Conv2d(2, 4, 2), nn.InstanceNorm2d(4, affine=True), x=r(4, 2, 4, 4)),
    "batch_norm by running statistics": of(
        nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4).eval(), nn.Tanh(), x=r(4, 2, 4, 4)
    ),
    "batch_norm of as many channels": of(nn.Linear(5, 4), nn.BatchNorm1d(4).eval(), x=r(4, 5)),
    "prelu": of(nn.Linear(5, 6), nn.PReLU(), x=r(4, 5)),
    "prelu of channels": of(nn.Conv1d(2, 3, 2), nn.PReLU(3), x=r(4, 2, 5)),
    "embedding": of(nn.Embedding(7, 4), nn.Linear(4, 2), x=whole(7, 3, 5)),
    "embedding with padding": of(nn.Embedding(7, 4, padding_idx=2), x=whole(7, 3, 9)),
    "embedding by frequency": of(nn.Embedding(5, 4, scale_grad_by_freq=True), x=whole(5, 3, 9)),
    "embedding of single words": of(nn.Embedding(5, 4), nn.Tanh(), x=whole(5, 3)),
    "embedding_bag, sum": of(nn.EmbeddingBag(7, 4, mode="sum"), nn.Tanh(), x=whole(7, 3, 5)),
    "embedding_bag, mean": of(nn.EmbeddingBag(7, 4, padding_idx=1), nn.Tanh(), x=whole(7, 3, 5)),
    "embedding_bag, max": of(nn.EmbeddingBag(7, 4, mode="max"), nn.Tanh(), x=whole(7, 3, 5)),
    "rnn": of(nn.RNN(3, 4, batch_first=True), x=r(4, 5, 3)),
    "rnn, relu, both ways": of(
        nn.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True, batch_first=True), x=r(4, 5, 3)
    ),
    "lstm": of(nn.LSTM(3, 4, num_layers=2, batch_first=True), x=r(4, 5, 3)),
    "lstm with a projection": of(nn.LSTM(3, 4, proj_size=2, batch_first=True), x=r(4, 5, 3)),
    "lstm, time first": of(transposed(nn.LSTM(3, 4)), x=r(4, 5, 3)),
    "gru": of(nn.GRU(3, 4, bidirectional=True, batch_first=True), x=r(4, 5, 3)),
    "lstm, last state": own(
        lambda m, x: m.f(x)[1][0][0], r(4, 5, 3), f=nn.LSTM(3, 4, batch_first=True)
    ),
    "lstm of several lengths": of(Sorted(nn.LSTM(3, 4)), x=r(5, 6, 3)),
    "gru of several lengths": of(Sorted(nn.GRU(3, 4, bidirectional=True)), x=r(5, 6, 3)),
    "gru cell": own(lambda m, x: m.f(x, m.f(x * 2)), r(4, 3), f=nn.GRUCell(3, 5)),
    "attention": of(Attentive(True), x=r(4, 5, 6)),
    "attention, time first": of(Attentive(False, False), x=r(4, 5, 6)),
    "attention, as many places as examples": of(Attentive(False), x=r(4, 4, 6)),
    "attention with biases of keys": of(Attentive(True, add_bias_kv=True), x=r(4, 5, 6)),
    "attention of another width": own(
        lambda m, x: m.f(x, x[..., :4], x[..., :3])[0],
        r(4, 5, 6),
        f=nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True),
    ),
    "attention to others": own(
        lambda m, x: m.f(x, x.tanh(), x.tanh())[0],
        r(4, 5, 6),
        f=nn.MultiheadAttention(6, 2, batch_first=True),
    ),
    "encoder layer": of(ENCODER, x=r(4, 5, 6)),
    "encoder layer, time first": own(
        lambda m, x: m.f(x.transpose(0, 1)).transpose(0, 1), r(4, 5, 6), f=LAST
    ),
    "encoder": of(nn.TransformerEncoder(ENCODER, 2, enable_nested_tensor=False), x=r(3, 5, 6)),
    "raw matrix": own(
        lambda m, x: torch.tanh(x @ m.w) * m.s + m.b, r(4, 5), w=r(5, 3), s=r(3), b=r()
    ),
    "raw products": own(
        lambda m, x: torch.addmm(m.b, x, m.w) / m.d + (x @ m.v)[:, None],
        r(4, 5),
        w=r(5, 3),
        b=r(3),
        d=r(1, 3).exp(),
        v=r(5),
    ),
    "raw vector": own(lambda m, x: torch.mv(torch.tanh(x), m.v), r(4, 5), v=r(5)),
    "raw matrices of a batch": own(
        lambda m, x: torch.einsum("nli,lio->nlo", x, m.w), r(4, 3, 5), w=r(3, 5, 2)
    ),
    "raw matrix on the left": own(lambda m, x: (m.w @ x.T).T, r(4, 5), w=r(3, 5)),
    "raw scale of channels": own(
        lambda m, x: F.softplus(m.s)[:, None] * x**m.p, r(4, 3, 5).abs(), s=r(3), p=r(1, 5)
    ),
    "a token before the others": own(
        lambda m, x: m.f(torch.cat([m.t.expand(len(x), -1, -1), x], 1))[:, 0],
        r(4, 3, 5),
        t=r(1, 1, 5),
        f=nn.Sequential(nn.LayerNorm(5), nn.Flatten(), nn.Linear(20, 3), nn.Unflatten(1, (3, 1))),
    ),
    "a table of rows": own(lambda m, x: x + m.w[torch.arange(3)], r(4, 3, 5), w=r(6, 5)),
    "shared layer": of(tied(), x=r(4, 5)),
    "shared convolution": own(
        lambda m, x: m.f(torch.tanh(m.f(x))), r(3, 2, 5, 5), f=nn.Conv2d(2, 2, 3, padding=1)
    ),
    "tied weights": of(Words(), x=whole(11, 3, 5)),
    "frozen weights": of(frozen(), x=r(4, 5)),
    "weight norm": of(nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)), x=r(4, 5)),
    "flipped batch": own(lambda m, x: m.f(x.flip(0)).flip(0), r(4, 5), f=nn.Linear(5, 3)),
    "sorted batch": own(
        lambda m, x: m.f(x[x[:, 0].argsort()])[x[:, 0].argsort().argsort()],
        r(4, 5),
        f=nn.Linear(5, 3),
    ),
    "in place": of(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3), x=r(4, 5)),
    "pooled": of(
        nn.Conv2d(1, 3, 3),
        nn.MaxPool2d(2),
        nn.Dropout(0.0),
        nn.Flatten(),
        nn.Linear(12, 2),
        x=r(4, 1, 6, 6),
    ),
}


def loop(model: nn.Module, x: Any, y: Any, cost: Callable[..., Tensor]) -> dict[str, Tensor]:
    """The gradients of one example after the other, by autograd."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for i in range(len(y)):
        given = tuple(t[i : i + 1] for t in x) if isinstance(x, tuple) else (x[i : i + 1],)
        value = cost(model(*given), y[i : i + 1])
        rows.append(torch.autograd.grad(value, list(named.values()), allow_unused=True))
    columns = zip(*rows, strict=True)
    return {n: torch.stack(c) for n, c in zip(named, columns, strict=True) if c[0] is not None}


def norm(gradients: Tensor) -> Tensor:
    return gradients.reshape(len(gradients), -1).norm(dim=1)


def close(found: dict[str, Tensor], expected: dict[str, Tensor], what: str = "") -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{what} {n}: {m}"
        )


@pytest.fixture(params=CASES, ids=str)
def case(request) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]()


def test_gradients_equal_a_loop_over_the_examples(case):
    """Twice, because the second time what the structure determines is remembered."""
    model, x, y, cost = case
    expected = loop(*case)
    close(manualbp.per_example_grads(model, x, y, cost=cost), expected)
    close(manualbp.per_example_grads(model, x, y, cost=cost), expected, "again")


def test_norms_are_those_of_the_gradients(case):
    model, x, y, cost = case
    expected = {name: norm(g) for name, g in loop(*case).items()}
    close(manualbp.per_example_norms(model, x, y, cost=cost), expected)
    close(manualbp.per_example_norms(model, x, y, cost=cost), expected, "again")


def test_clipped_gradients_are_the_sum_of_clipped_ones(case):
    model, x, y, cost = case
    if getattr(model, "scale_grad_by_freq", False):
        pytest.skip("one backward pass counts the words of the whole batch")
    each = loop(*case)
    norms = torch.stack([norm(g) for g in each.values()]).norm(dim=0)
    bound = float(norms.median())
    factor = (bound / norms).clamp(max=1)
    expected = {name: torch.einsum("n,n...->...", factor, g) for name, g in each.items()}
    close(manualbp.clipped_grads(model, x, y, cost=cost, max_norm=bound), expected)


# ----------------------------------------------------------------------------------------- costs


def classes(n: int, *shape: int) -> Tensor:
    return whole(3, n, *shape)


#: a cost of an output (4, 3) or (4, 3, 5), and its targets
COSTS: dict[str, tuple[Callable[..., Tensor], Tensor, tuple[int, ...]]] = {
    "mse": (nn.MSELoss(), r(4, 3), (3,)),
    "mse, sum": (nn.MSELoss(reduction="sum"), r(4, 3), (3,)),
    "mse of places": (nn.MSELoss(), r(4, 3, 5), (3, 5)),
    "squared error": (manualbp.nn.SquaredError(), r(4, 3), (3,)),
    "squared error, sum": (manualbp.nn.SquaredError(reduction="sum"), r(4, 3), (3,)),
    "l1": (nn.L1Loss(), r(4, 3), (3,)),
    "smooth l1": (nn.SmoothL1Loss(), r(4, 3), (3,)),
    "huber": (nn.HuberLoss(delta=0.3), r(4, 3), (3,)),
    "cross entropy": (nn.CrossEntropyLoss(), classes(4), (3,)),
    "cross entropy, sum": (nn.CrossEntropyLoss(reduction="sum"), classes(4), (3,)),
    "cross entropy of places": (nn.CrossEntropyLoss(), classes(4, 5), (3, 5)),
    "cross entropy, some ignored": (nn.CrossEntropyLoss(ignore_index=1), classes(4, 5), (3, 5)),
    "cross entropy, weighted": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2, 5], dtype=torch.double)), classes(4, 5), (3, 5)
    ),
    "cross entropy, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), classes(4), (3,)),
    "cross entropy of probabilities": (nn.CrossEntropyLoss(), r(4, 3).softmax(1), (3,)),
    "logits": (nn.BCEWithLogitsLoss(), r(4, 3).sigmoid(), (3,)),
    "logits, weighted": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0).double()), r(4, 3).sigmoid(), (3,)
    ),
    "divergence": (nn.KLDivLoss(reduction="batchmean"), r(4, 3).softmax(1), (3,)),
    "margins": (nn.MultiMarginLoss(), classes(4), (3,)),
    "by hand": (lambda o, y: ((o - y) ** 2).mean() + o.abs().sum(), r(4, 3), (3,)),
    "by hand, over the length": (lambda o, y: (o * y).square().sum() / len(o), r(4, 3), (3,)),
    "a multiple": (lambda o, y: 3 * F.mse_loss(o, y), r(4, 3), (3,)),
    "another target": (lambda o, y: F.mse_loss(o, y - y.mean(0)), r(4, 3), (3,)),
    "of numbers that it looks at": (
        lambda o, y: F.mse_loss(o, y) if o.detach().sum() > 0 else o.square().sum(), r(4, 3), (3,)
    ),
    "flattened": (
        lambda o, y: F.cross_entropy(o.transpose(1, 2).reshape(-1, 3), y.reshape(-1)),
        classes(4, 5),
        (3, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_that_of_each_example_alone(name):
    """Whatever it divides by: the entries, the examples, the weights of their targets, nothing."""
    cost, y, shape = COSTS[name]
    torch.manual_seed(0)
    wide = 1
    for n in shape:
        wide *= n
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, wide), nn.Unflatten(1, shape))
    model, x = model.double(), r(4, 4)
    expected = loop(model, x, y, cost)
    for again in ("", "again"):
        close(manualbp.per_example_grads(model, x, y, cost=cost), expected, again)


def test_outputs_and_targets_may_be_several():
    """In containers; and inputs in a tuple."""
    torch.manual_seed(0)
    model = Own(
        lambda m, a, b: {"sum": m.f(a) + m.g(b), "of b": (m.g(b),)},
        f=nn.Linear(3, 2),
        g=nn.Linear(4, 2),
    ).double()
    x, y = (r(5, 3), r(5, 4)), r(5, 2)

    def cost(o: Any, y: Tensor) -> Tensor:
        return F.mse_loss(o["sum"], y) + o["of b"][0].square().mean()

    close(manualbp.per_example_grads(model, x, y, cost=cost), loop(model, x, y, cost))


def test_an_output_may_have_its_examples_along_another_axis():
    model = Own(lambda m, x: m.f(x).transpose(0, 1), f=nn.Linear(3, 2)).double()
    x, y = r(4, 4, 3), r(4, 4, 2)

    def cost(o: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(o.transpose(0, 1), y)

    close(manualbp.per_example_grads(model, x, y, cost=cost), loop(model, x, y, cost))


# ------------------------------------------------------------------- what is found out, not assumed


def test_a_remembered_structure_is_not_taken_for_another_layout():
    """One model that puts time first or not, as a flag says, with as many steps as examples."""
    torch.manual_seed(0)
    model = Own(
        lambda m, x: m.f(x.transpose(0, 1)).transpose(0, 1) if m.swap else m.f(x).clone(),
        f=nn.LSTM(3, 2).double(),
    )
    model.function = lambda m, x: (
        m.f(x.transpose(0, 1))[0].transpose(0, 1)
        if m.swap
        else m.f(x.transpose(0, 1).flip(0))[0].transpose(0, 1)
    )
    x, y = r(4, 4, 3), r(4, 4, 2)
    for model.swap in (True, False, True, True, False):
        close(manualbp.per_example_grads(model, x, y, cost=mse), loop(model, x, y, mse))


def test_an_order_that_the_data_decides_is_found_out_each_time():
    """The first batch is in order already, the second is not."""
    model, _, _, cost = CASES["sorted batch"]()
    x = r(4, 5)
    x = x[x[:, 0].argsort()]
    for given in (x, x.flip(0), x[[2, 0, 3, 1]]):
        y = r(4, 3)
        close(manualbp.per_example_grads(model, given, y, cost=cost), loop(model, given, y, cost))


def test_a_wrong_rule_for_examples_is_seen(monkeypatch):
    """By this file: the rules are what computes."""
    rule = manualbp.formulas.Linear.example_weight
    wrong = staticmethod(lambda delta, input: 1.001 * rule(delta, input))
    monkeypatch.setattr(manualbp.formulas.Linear, "example_weight", wrong)
    given = CASES["linear"]()
    with pytest.raises(AssertionError):
        close(manualbp.per_example_grads(given[0], *given[1:3], cost=given[3]), loop(*given))


def rules(kind: str) -> set[tuple[str, str]]:
    """The formulas with a rule of that kind, and its argument."""
    formulas = [getattr(manualbp.formulas, n) for n in manualbp.formulas.__dict__ if n[0].isupper()]
    return {
        (f.__name__, name.removeprefix(kind))
        for f in formulas
        for name in dir(f)
        if name.startswith(kind) and callable(getattr(f, name))
    }


def test_rules_for_examples_stand_beside_the_rules_they_belong_to():
    ordinary, examples, squares = map(rules, ("grad_", "example_", "square_"))
    assert squares <= examples <= ordinary


def test_every_rule_for_examples_is_run_by_a_case(monkeypatch):
    ran: set[tuple[str, str]] = set()

    def noting(rule: Callable[..., Tensor], key: tuple[str, str]) -> Callable[..., Tensor]:
        @wraps(rule)
        def noted(*given: Any) -> Tensor:
            ran.add(key)
            return rule(*given)

        return noted

    for name, argument in rules("example_"):
        formula = getattr(manualbp.formulas, name)
        rule = getattr(formula, f"example_{argument}")
        noted = staticmethod(noting(rule, (name, argument)))
        monkeypatch.setattr(formula, f"example_{argument}", noted)
    for make in CASES.values():
        model, x, y, cost = make()
        manualbp.per_example_grads(model, x, y, cost=cost)
    assert rules("example_") - ran == set()


def test_a_formula_of_ones_own_needs_no_rule_for_examples():
    class Ramp(manualbp.Formula):
        """a = w x²"""

        @staticmethod
        def forward(input: Tensor, weight: Tensor) -> Tensor:
            return input**2 @ weight

        @staticmethod
        def grad_input(g: Tensor, input: Tensor, weight: Tensor) -> Tensor:
            return 2 * input * (g @ weight.mT)

        @staticmethod
        def grad_weight(g: Tensor, input: Tensor) -> Tensor:
            return (input**2).mT @ g

    model = Own(lambda m, x: Ramp.apply(m.f(x), m.w), f=nn.Linear(5, 4), w=r(4, 3)).double()
    twin = Own(lambda m, x: m.f(x) ** 2 @ m.w, f=model.f, w=model.w.detach())
    x, y = r(4, 5), r(4, 3)
    close(manualbp.per_example_grads(model, x, y, cost=mse), loop(twin, x, y, mse))
    norms = {name: norm(g) for name, g in loop(twin, x, y, mse).items()}
    close(manualbp.per_example_norms(model, x, y, cost=mse), norms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_have_the_dtype_of_their_parameters(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    x, y = torch.randn(20, 5, dtype=dtype), torch.randn(20, 3, dtype=dtype)
    found = manualbp.per_example_grads(model, x, y, cost=mse)
    norms = manualbp.per_example_norms(model, x, y, cost=mse)
    for name, g in loop(model, x, y, mse).items():
        assert found[name].dtype is dtype
        tolerance = {torch.float32: 1e-5}.get(dtype, 3e-2)
        torch.testing.assert_close(found[name], g, rtol=tolerance, atol=tolerance)
        expected = norm(g.float())
        torch.testing.assert_close(norms[name].float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.cuda
def test_it_runs_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for name in ("conv2d, all options", "lstm", "encoder layer", "tied weights"):
        if name == "tied weights":
            continue  # makes its positions on the CPU
        model, x, y, cost = CASES[name]()
        model, x, y = model.cuda(), x.cuda(), y.cuda()
        expected = loop(model, x, y, cost)
        close(manualbp.per_example_grads(model, x, y, cost=cost), expected)


# ---------------------------------------------------------------------------- what is not changed


def test_the_model_is_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(7, 4, max_norm=0.5), nn.LSTM(4, 4, batch_first=True), Own(lambda m, x: x[0]),
        nn.Dropout(0.5), nn.Flatten(), nn.InstanceNorm1d(1, track_running_stats=True),
        nn.Linear(12, 2),
    )  # fmt: skip
    model[5] = Own(lambda m, x: m.f(x.unsqueeze(1)).squeeze(1), f=model[5])
    x, y = whole(7, 5, 3), torch.randn(5, 2)
    calls: list[int] = []
    model[6].register_forward_hook(lambda *_: calls.append(1))
    model[6].weight.grad = torch.ones_like(model[6].weight)
    kinds = [type(m) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    buffers = {name: b for name, b in model.named_buffers()}
    random = torch.get_rng_state()
    manualbp.per_example_grads(model, x, y, cost=mse)
    manualbp.per_example_norms(model, x, y, cost=mse)
    manualbp.clipped_grads(model, x, y, cost=mse, max_norm=1.0)
    assert torch.equal(random, torch.get_rng_state())
    assert [type(m) for m in model.modules()] == kinds
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(b is buffers[name] for name, b in model.named_buffers())
    assert torch.equal(model[6].weight.grad, torch.ones_like(model[6].weight))
    assert [p.grad for p in model[1].parameters()] == [None] * 4
    assert calls and len(model[6]._forward_hooks) == 1


# ---------------------------------------------------------------------------------------- errors


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


class Foreign(nn.Module):
    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first, self.f, self.g = first, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else self.f(x)
        return self.f(torch.fft.fft(x * self.g.bias).abs())


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no module": (
        lambda: manualbp.per_example_grads(len, r(4, 4), r(4, 2), cost=mse),
        TypeError, "model: expected a torch.nn.Module, got builtin_function_or_method",
    ),
    "no cost": (
        lambda: manualbp.per_example_grads(plain(), r(4, 4), r(4, 2), cost="mse"),
        TypeError, "cost: expected a function of the model's output and y",
    ),
    "no tensor": (
        lambda: manualbp.per_example_norms(plain(), "x", r(4, 2), cost=mse),
        TypeError, "x: expected a tensor, got str",
    ),
    "other lengths": (
        lambda: manualbp.per_example_grads(plain(), r(4, 4), r(3, 2), cost=mse),
        ValueError, r"x and y: expected .* got x of \(4, 4\) and y of \(3, 2\)",
    ),
    "no example": (
        lambda: manualbp.per_example_grads(plain(), r(4, 4)[:0], r(4, 2)[:0], cost=mse),
        ValueError, "x: expected one example or more",
    ),
    "cost of each": (
        lambda: manualbp.per_example_grads(
            plain(), r(4, 4), r(4, 2), cost=nn.MSELoss(reduction="none")
        ),
        ValueError, r"cost: expected .* a single number, got a tensor of shape \(4, 2\)",
    ),
    "cost of no tensor": (
        lambda: manualbp.per_example_grads(plain(), r(4, 4), r(4, 2), cost=lambda o, y: 1.0),
        TypeError, "cost: expected it to return a tensor, got float",
    ),
    "batch norm": (
        lambda: manualbp.per_example_norms(
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double(), r(4, 4), r(4, 3), cost=mse
        ),
        ValueError, "model: BatchNorm1d '1' normalises by the mean and variance of the",
    ),
    "batch norm of one's own": (
        lambda: manualbp.per_example_grads(
            Own(lambda m, x: F.batch_norm(m.f(x), None, None, training=True), f=plain()).double(),
            r(4, 4), r(4, 2), cost=mse,
        ),
        ValueError, "model: BatchNorm computes with several examples at once",
    ),
    "a mean over the batch": (
        lambda: manualbp.per_example_grads(
            Own(lambda m, x: m.f(x) - m.f(x).mean(0), f=plain()), r(4, 4), r(4, 2), cost=mse
        ),
        ValueError, "model: Sub computes with several examples at once",
    ),
    "foreign": (
        lambda: manualbp.per_example_grads(Foreign(False).double(), r(3, 4), r(3, 4), cost=mse),
        RuntimeError, "model: manualbp has no formula of .*Fft",
    ),
    "flattened": (
        lambda: manualbp.per_example_grads(
            Own(lambda m, x: m.f(x).flatten(), f=plain()), r(4, 4), r(8), cost=mse
        ),
        ValueError, "x and y: expected",
    ),
    "no axis of examples": (
        lambda: manualbp.per_example_grads(
            Own(lambda m, x: m.f(x).flatten(), f=plain()), r(4, 4), r(4, 2),
            cost=lambda o, y: F.mse_loss(o, y.flatten()),
        ),
        ValueError, r"an output with an axis for the examples, got the shape \(8,\)",
    ),
    "bound": (
        lambda: manualbp.clipped_grads(plain(), r(4, 4), r(4, 2), cost=mse, max_norm=0.0),
        ValueError, "max_norm: expected a positive number, got 0.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected_what_came_and_how_to_mend_it(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()
