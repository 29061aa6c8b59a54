"""Programs drawn at random run by formula as they run by torch."""

import re

import pytest
import random_programs
from random_programs import Line, Program, calls, check, drawn, harmless


def test_a_program_is_known_by_its_seed_and_number():
    first, again, other = drawn(0, 3), drawn(0, 3), drawn(1, 3)
    assert first == again != other
    assert 3 <= sum(not line.leaf for line in first.lines) <= 13


def test_every_function_of_the_table_can_be_drawn():
    assert len(calls()) > 500
    builder = random_programs.Builder(random_programs.random.Random(0))
    for path, recipe in calls().items():
        builder.name, builder.path = path.rpartition(".")[2], path
        arguments = recipe(builder)
        assert arguments is None or all(isinstance(a, str) for a in arguments), path


#: programs that once went wrong: leaves, calls, the costs
FOUND = {
    "a number from a source with an axis": (
        ["x0 = randn(1, ()).requires_grad_()", "x1 = randn(2, (1,)).requires_grad_()"],
        [
            "v2 = x0.index_copy(0, torch.tensor([0]), x1)",
            "v3 = x0.index_add(0, torch.tensor([0]), x1)",
            "v4 = v2 + v3",
        ],
        dict(costs=("v4",)),
    ),
    "a gradient of nan at a distance of 0": (
        ["x0 = randn(1, (2, 3, 1)).requires_grad_()"],
        ["v1 = torch.cdist(x0, x0, p=1.5)", "v2 = v1.logit(0.1)"],
        dict(costs=("v2",), second=True),
    ),
    "a margin of nothing": (
        ["x0 = randn(1, (2, 1, 2)).requires_grad_()"],
        ["v1 = F.pad(x0, (0, 0), 'circular')"],
        dict(costs=("v1",)),
    ),
    "a second derivative where two points are one": (
        ["x0 = randn(1, (2, 1)).requires_grad_()"],
        ["v1 = torch.cdist(x0, x0, p=0.5)"],
        dict(costs=("v1",), second=True),
    ),
    "nothing is drawn where all is left out": (
        ["x0 = randn(1, (3,)).requires_grad_()"],
        ["v1 = F.dropout(x0, 1.0)", "v2 = F.dropout(x0)"],
        dict(costs=("v2",)),
    ),
    "an image of no pixels": (
        [
            "x0 = randn(1, (1, 2, 2, 3), torch.float).requires_grad_()",
            "x1 = randn(2, (2, 1, 1, 2), torch.float).requires_grad_()",
        ],
        ["v2 = torch.conv_transpose2d(x0, x1, padding=1, groups=2)"],
        dict(costs=("v2",)),
    ),
    "an image of no channels": (
        [
            "x0 = randn(1, (2, 0, 3, 3)).requires_grad_()",
            "x1 = randn(2, (2, 0, 2, 2)).requires_grad_()",
        ],
        ["v2 = torch.conv2d(x0, x1)"],
        dict(costs=("v2",)),
    ),
    "a similarity of integers and numbers": (
        ["x0 = rand(1, (4,)).mul(3).long()", "x1 = randn(2, (4,)).requires_grad_()"],
        ["v2 = F.cosine_similarity(x0, x1, dim=0)"],
        dict(costs=("v2",)),
    ),
    "a target that only says which case holds": (
        ["x0 = randn(1, (3,))", "x1 = randn(2, (3,)).requires_grad_()"],
        ["v2 = F.hinge_embedding_loss(x0, x1)"],
        dict(),
    ),
    "a margin cost of nan": (
        ["x0 = randn(1, (2, 3)).sqrt().requires_grad_()", "x1 = torch.tensor([0, 2])"],
        [
            "v2 = F.multi_margin_loss(x0, x1, p=2)",
            "v3 = F.multilabel_margin_loss(x0[0], x1[:1].expand(3))",
        ],
        dict(costs=("v2",)),
    ),
    "nothing left out of a single example": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        [
            "v1 = x0 * 1",
            "v2 = F.dropout3d(v1, 0.5, False)",
            "v3 = F.dropout1d(v1, 0.5, False)",
            "v1.t_()",
        ],
        dict(costs=("v2", "v3")),
    ),
    "a norm of 0, and of less than 0": (
        ["x0 = randn(1, (3, 4)).requires_grad_()"],
        [
            "v1 = x0.relu()",
            "v2 = torch.linalg.vector_norm(v1, -1, 1)",
            "v3 = v1.dist(v1.detach(), 3)",
        ],
        dict(costs=("v2", "v3")),
    ),
    "nan beside what was filled in": (
        ["x0 = randn(1, ()).requires_grad_()", "x1 = randn(2, (4, 3))"],
        ["v2 = x1.index_fill(1, torch.tensor([2]), x0.abs()).rsqrt()"],
        dict(costs=("v2",)),
    ),
    "distances among the same points": (
        ["x0 = randn(1, (4, 3)).requires_grad_()"],
        ["v1 = torch.cdist(x0, x0.clone())"],
        dict(costs=("v1",), second=True),
    ),
    "an infinite gradient of what is cut off": (
        [
            "x0 = randn(1, (2, 3)).requires_grad_()",
            "x1 = randn(2, (2, 2))",
            "x2 = randn(3, (2, 2))",
        ],
        ["v3 = torch.rnn_relu_cell(x0, x1, randn(4, (2, 3)), x2)", "v4 = v3.sqrt()"],
        dict(costs=("v4",)),
    ),
    "torch's own operations on what a formula returned": (
        ["x0 = randn(1, (4,)).requires_grad_()"],
        ["v1 = x0.exp()", "v2 = reverse(v1)", "v3 = v2.unflatten(0, (2, 2)).sin()"],
        dict(costs=("v3",)),
    ),
    "a formula that returns its input, where nothing is recorded": (
        ["x0 = randn(1, (3,)).requires_grad_()", "x1 = randn(2, ())"],
        ["with torch.no_grad(): v2 = reverse(x0)", "v3 = reverse(x1)", "v3.unsqueeze_(0)"],
        dict(),
    ),
    "a value that is a view of a step on the way, written over": (
        ["x0 = randn(1, (3,)).requires_grad_()", "x1 = randn(2, (3, 3, 3))", "x2 = randn(3, (3,))"],
        ["v3 = F.bilinear(x2, x0, x1)", "v4 = v3.squeeze().mul_(2)"],
        dict(costs=("v4",)),
    ),
    "detached in place, with a view from before": (
        ["x0 = randn(1, (2, 2)).requires_grad_()"],
        ["v1 = x0 ** 2", "v2 = v1.view(4)", "v3 = v1.detach_()", "v4 = v3 * 2"],
        dict(costs=("v2",)),
    ),
    "a hook on a view whose axes change in place": (
        ["x0 = randn(1, (2, 1, 3)).requires_grad_()"],
        [
            "v1 = x0.sin()",
            "v2 = v1.view(1, 6)",
            "v2.register_hook(lambda g: 2 * g)",
            "v2.squeeze_()",
        ],
        dict(costs=("v2",)),
    ),
    "a hook on a view that is written to": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        [
            "v1 = x0.sin()",
            "v2 = v1.view(6)",
            "v2.register_hook(lambda g: 2 * g)",
            "v2 *= 3",
            "v3 = torch.ones(4) * x0[0, 0]",
            "v4 = v3[1:]",
            "v4.register_hook(lambda g: 2 * g)",
            "F.elu(v4, inplace=True)",
        ],
        dict(costs=("v2", "v3")),
    ),
    "only an empty row wants a gradient": (
        ["x0 = randn(1, (0,)).requires_grad_()", "x1 = randn(2, (2, 3))"],
        ["v2 = torch.cat([x1, x0], 1)", "v3 = v2 * 2"],
        dict(costs=("v3",)),
    ),
    "a value that is contiguous whatever its input is": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        ["v1 = F.rrelu(x0.mT, training=True).view(-1)", "v2 = F.rrelu(x0.mT).view(-1)"],
        dict(costs=("v1", "v2")),
    ),
    "the gradient of a bias, of a single example": (
        ["x0 = randn(1, (4,))", "x1 = randn(2, (4,)).requires_grad_()"],
        ["v2 = F.layer_norm(x0, [4], bias=x1)", "v3 = v2.t()"],
        dict(costs=("v3",)),
    ),
    "turned by nothing": (
        ["x0 = randn(1, ()).requires_grad_()"],
        ["v1 = torch.rot90(torch.atleast_2d(x0), 0)"],
        dict(costs=("v1",)),
    ),
    "what arrives at a norm of 0 is infinite": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        [
            "v1 = 1 / torch.dist(x0, x0, 3)",
            "v2 = 1 / torch.linalg.vector_norm(x0 * 0, 1.5, 1)",
            "v3 = 1 / torch.linalg.vector_norm(x0 * 0, 2)",
        ],
        dict(costs=("v1", "v2", "v3")),
    ),
    "a cost of no labels": (
        ["x0 = randn(1, (3, 0)).requires_grad_()", "x1 = randn(2, (3, 0))"],
        ["v2 = F.multilabel_soft_margin_loss(x0, x1)"],
        dict(costs=("v2",)),
    ),
    "a bias of any strides, where oneDNN multiplies": (
        [
            "x0 = randn(1, (2, 3), torch.float).requires_grad_()",
            "x1 = randn(2, (4, 3), torch.float).requires_grad_()",
            "x2 = randn(3, (8,), torch.float)[::2]",
            "x3 = randn(4, (1,), torch.float).expand(4)",
        ],
        ["v4 = F.linear(x0, x1, x2)", "v5 = torch.rnn_relu_cell(x0, v4, x1, x1 @ x1.T, x3, x2)"],
        dict(costs=("v5",), onednn=True),
    ),
    "nan where a hinge has no slope": (
        ["x0 = rand(1, (4,)).add(1).requires_grad_()", "x1 = -torch.ones(4)"],
        ["v2 = F.hinge_embedding_loss(x0, x1, reduction='none').log()"],
        dict(costs=("v2",)),
    ),
    "nan for the median, and for a largest number": (
        ["x0 = randn(1, (4,)).requires_grad_()"],
        ["v1 = x0.median().std()", "v2 = x0.max().std()"],
        dict(costs=("v1", "v2")),
    ),
    "nan in the row of the padding": (
        [
            "x0 = torch.full((1, 1), torch.nan)",
            "x1 = randn(2, (1, 2), torch.float).requires_grad_()",
        ],
        [
            "v2 = F.embedding_bag(torch.zeros(1, 2, dtype=torch.long), x0, "
            "per_sample_weights=x1, mode='sum', padding_idx=0)"
        ],
        dict(costs=("v2",)),
    ),
    "nan where prelu is one": (
        ["x0 = randn(1, (1,)).requires_grad_()", "x1 = rand(2, (1, 1))"],
        ["v2 = x1.prelu(x0).std()"],
        dict(costs=("v2",)),
    ),
    "nan for a count of what differs": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        ["v1 = x0.norm(0).std()", "v2 = torch.cdist(x0, x0 + 1, p=0.0).log().mul(0).std()"],
        dict(costs=("v1", "v2")),
    ),
    "the second derivative of rows that count once": (
        ["x0 = randn(1, (2, 1)).requires_grad_()"],
        ["v1 = F.embedding(torch.tensor([1, 0, 1]), x0, scale_grad_by_freq=True).tanh()"],
        dict(costs=("v1",), second=True),
    ),
    "axes changed in place, where nothing is recorded": (
        ["x0 = randn(1, (3, 2)).requires_grad_()"],
        [
            "v1 = torch.roll(x0, -1, -2)",
            "v2 = v1.view(-1).add_(0.3)",
            "with torch.no_grad(): v3 = v1.unsqueeze_(0)",
        ],
        dict(costs=("v1",)),
    ),
    "added in place, and then seen another way": (
        ["x0 = randn(1, ()).requires_grad_()", "x1 = randn(2, ()).requires_grad_()"],
        ["v2 = x0.sin()", "v3 = v2.add_(x1)", "v2.unsqueeze_(0)"],
        dict(costs=("v2",)),
    ),
    "a variance of whole numbers": (
        [
            "x0 = rand(1, (4,)).mul(3).long()",
            "x1 = randn(2, (4,), torch.float16).requires_grad_()",
            "x2 = randn(2, (4,)).requires_grad_()",
        ],
        ["v3 = F.gaussian_nll_loss(x0, x1, 0.5)", "v4 = F.gaussian_nll_loss(x0, x2, 0.5)"],
        dict(costs=("v3", "v4")),
    ),
    "an infinite slope that no window sees": (
        [
            "x0 = randn(1, (1, 2, 2, 2)).requires_grad_()",
            "x1 = randn(2, (2, 1, 1, 2)).requires_grad_()",
        ],
        [
            "v2 = torch.conv_transpose2d(x0, x1, stride=2, output_padding=1).abs().sqrt()",
            "v3 = torch.conv_transpose2d(x0, x1, stride=1, output_padding=1, dilation=2)",
            "v4 = v3.abs().sqrt()",
        ],
        dict(costs=("v2", "v4"), second=True),
    ),
    "a hidden state that broadcasts": (
        [
            "x0 = randn(1, (3, 1))",
            "x1 = randn(2, (1, 3, 2)).requires_grad_()",
            "x2 = randn(3, (2, 1))",
            "x3 = randn(4, (2, 2)).requires_grad_()",
        ],
        ["v4 = torch.rnn_tanh_cell(x0[:1], x1[:, :1], x2, x3)"],
        dict(costs=("v4",)),
    ),
    "a hook on the weights of attention": (
        ["x0 = randn(1, (2, 2, 1)).requires_grad_()", "x1 = randn(2, (3, 1)).requires_grad_()"],
        [
            "v2, v3 = F.multi_head_attention_forward(x0, x0, x0, 1, 1, x1, None, None, None, "
            "False, 0.0, x1[:1], None, average_attn_weights=False)",
            "v3.register_hook(lambda g: 2 * g)",
        ],
        dict(costs=("v2", "v3")),
    ),
    "turned by nothing, of other strides": (
        ["x0 = randn(1, (3, 2, 3)).mT.requires_grad_()"],
        ["v1 = torch.rot90(x0, 0)", "v2 = v1.reshape(-1)"],
        dict(costs=("v2",)),
    ),
    "an error of torch's type": (
        ["x0 = randn(1, (1, 1, 4)).requires_grad_()", "x1 = randn(2, (1, 1, 2))"],
        ["v2 = torch.conv1d(x0, x1, stride=2, padding='same')"],
        dict(),
    ),
}


#: programs in which torch has another gradient, as docs/differences.md says, or rounds apart
KNOWN = {
    "celu at nan": (
        ["x0 = randn(10, (4, 3, 3))", "x1 = randn(11, (3, 3, 4)).requires_grad_()"],
        ["v2 = torch.tensordot(x0, x1)", "v2.log1p_()", "v4 = torch.celu(v2, 0.1)"],
        dict(costs=("v4",), second=True),
    ),
    "a view in torch alone": (
        ["x0 = randn(1, (2, 1, 4)).requires_grad_()"],
        [
            "v1 = F.avg_pool1d(x0, 2, stride=2)",
            "v1.retain_grad()",
            "v1.register_hook(lambda g: 2 * g)",
            "v2 = v1.diagonal().pow_(2.0)",
        ],
        dict(costs=("v2",)),
    ),
    "a hook on a view in torch alone": (
        ["x0 = randn(3, (2, 2, 4)).requires_grad_()"],
        [
            "v4 = torch.tensordot(x0, x0.reshape((2, 4, 2)), dims=2)",
            "v4.register_hook(lambda g: 2 * g)",
            "v4[::2, -2] += 1",
        ],
        dict(costs=("v4",)),
    ),
    "a copy into a view in torch alone": (
        ["x0 = randn(1, (1, 2, 4))", "x1 = randn(2, (1, 2, 2)).requires_grad_()"],
        ["v2 = F.avg_pool1d(x0.requires_grad_(), 2, 2)", "v2.copy_(x1)", "v2.unsqueeze_(0)"],
        dict(costs=("v2",)),
    ),
    "detached in place after it was saved": (
        ["x0 = randn(1, (1, 1)).requires_grad_()"],
        ["v1 = x0.prod(0)", "v2 = v1 @ x0", "v1.detach_()"],
        dict(costs=("v2",), second=True),
    ),
    "poisson_nll_loss with a target below 0": (
        ["x0 = randn(12, ())", "x1 = (-rand(2, ())).requires_grad_()"],
        ["v0 = torch.selu_(input=x0)", "v2 = F.poisson_nll_loss(v0, x1, full=True)"],
        dict(costs=("v2",)),
    ),
    "no distance": (
        ["x0 = randn(1, (2, 3)).requires_grad_()"],
        ["v1 = x0.dist(x0)"],
        dict(costs=("v1",), second=True),
    ),
    "the similarity of nothing": (
        ["x0 = randn(1, (1, 2, 1)).requires_grad_()"],
        ["v1 = torch.special.log_softmax(x0, 2)", "v2 = F.cosine_similarity(v1, v1, dim=2)"],
        dict(costs=("v2",), second=True),
    ),
    "0 to a power": (
        ["x0 = rand(1, (3,)).add(2).requires_grad_()"],
        ["v1 = torch.tensor([0, 1, 3]) ** x0"],
        dict(costs=("v1",), second=True),
    ),
    "a weight with gaps": (
        ["x0 = randn(1, (3, 2)).requires_grad_()", "x1 = rand(2, (4,))[::2]"],
        ["v2 = F.batch_norm(x0, None, None, x1, None, True)"],
        dict(costs=("v2",)),
    ),
    "a correction above the count": (
        ["x0 = randn(1, (1, 1)).requires_grad_()"],
        ["v1 = torch.var(x0, dim=-2, correction=2)"],
        dict(costs=("v1",)),
    ),
    "whether what rounding leaves is above 0": (
        ["x0 = rand(362656, (2, 2, 2, 4), torch.float32).requires_grad_()"],
        [
            "v1 = torch.var_mean(F.threshold(x0, 1, -0.7), correction=2)[0]",
            "v2 = v1.masked_fill(v1 > 0, 0.5)",
        ],
        dict(),
    ),
}


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known(name):
    found = checked(*KNOWN[name])
    assert all(map(harmless, found)), found
    assert {"as docs/differences.md says", "ill-conditioned"} & {f.kind for f in found}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name):
    found = checked(*FOUND[name])
    assert not [f for f in found if not harmless(f)], found


def checked(leaves, body, options):
    begin = [Line(source, (source.partition(" ")[0],), leaf=True) for source in leaves]
    lines = [Line(source, tuple(re.findall(r"^v\d+(?= = )", source))) for source in body]
    return check(Program((*begin, *lines), **options))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_programs_drawn_at_random(seed):
    report = random_programs.hunt(seed, programs=500)
    assert report.programs == 500 and not report.found, "\n".join([str(report), *report.told])
