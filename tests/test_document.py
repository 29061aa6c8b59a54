"""The document, line by line: its formulas written out by index in plain Python, beside the layers.

Chapter 4 of the lesson derives the gradient of one weight by the chain rule, first in a chain of
single neurons, then with several neurons a layer. Below, each of its formulas is one line of
Python on floats, with the chapter's letters; at the end of every test stands what the layers'
backward pass found, and what a tiny nudge to the weight does to the cost.
"""

from math import exp

import pytest
import torch
from torch.testing import assert_close

from manualbp import nn


def σ(z):
    return 1 / (1 + exp(-z))


def σ_prime(z):
    return σ(z) * (1 - σ(z))


close = pytest.approx


# ---------------------------------------------------------------------- one neuron in each layer

w = [0.7, -1.3, 0.9]  # three weights and three biases in total
b = [0.2, 0.4, -0.6]
a0, y = 0.5, 1.0  # the input, and the desired output


def chain(w, b):
    """z = w a_prev + b and a = σ(z), layer after layer; C₀ = (a − y)²."""
    zs, activations = [], [a0]
    for w_L, b_L in zip(w, b, strict=True):
        zs.append(w_L * activations[-1] + b_L)
        activations.append(σ(zs[-1]))
    return zs, activations, (activations[-1] - y) ** 2


def chain_of_layers():
    """The same network of manualbp's layers, its gradients found by their backward pass."""
    layers = [nn.Linear(1, 1).double() for _ in w]
    with torch.no_grad():
        for layer, w_L, b_L in zip(layers, w, b, strict=True):
            layer.weight.fill_(w_L)
            layer.bias.fill_(b_L)
    inputs = []
    a = torch.tensor([[a0]], dtype=torch.double)
    for layer in layers:
        a = a.requires_grad_() if a.is_leaf else a
        a.retain_grad()
        inputs.append(a)
        a = nn.Sigmoid()(layer(a))
    cost = nn.SquaredError()(a, torch.tensor([[y]], dtype=torch.double))
    cost.backward()
    return layers, inputs, cost.item()


def nudged(cost, values, i, by=1e-6):
    """ΔC / Δvalue: how the cost answers to a tiny nudge of one value, to both sides."""
    up, down = list(values), list(values)
    up[i] += by
    down[i] -= by
    return (cost(up) - cost(down)) / (2 * by)


def test_one_neuron_the_last_weight():
    """∂C₀/∂w = ∂z/∂w · ∂a/∂z · ∂C₀/∂a: how active · how responsive · how wrong."""
    (_, _, z), (_, _, a_prev, a), cost = chain(w, b)

    dC_da = 2 * (a - y)  # how wrong the output is
    da_dz = σ_prime(z)  # how responsive the neuron is
    dz_dw = a_prev  # how active the input was
    dC_dw = dz_dw * da_dz * dC_da

    layers, _, found = chain_of_layers()
    assert found == close(cost)
    assert layers[-1].weight.grad.item() == close(dC_dw, rel=1e-12)
    assert nudged(lambda w: chain(w, b)[2], w, 2) == close(dC_dw, rel=1e-7)


def test_one_neuron_the_last_bias():
    """∂z/∂b = 1: the bias shifts the neuron as a whole."""
    (_, _, z), (_, _, _, a), _ = chain(w, b)

    dz_db = 1
    dC_db = dz_db * σ_prime(z) * 2 * (a - y)

    layers, _, _ = chain_of_layers()
    assert layers[-1].bias.grad.item() == close(dC_db, rel=1e-12)
    assert nudged(lambda b: chain(w, b)[2], b, 2) == close(dC_db, rel=1e-7)


def test_one_neuron_the_previous_activation():
    """∂z/∂a_prev = w: what is propagated backwards."""
    (_, _, z), (_, _, a_prev, a), _ = chain(w, b)

    dC_da_prev = w[2] * σ_prime(z) * 2 * (a - y)

    _, inputs, _ = chain_of_layers()
    assert inputs[-1].grad.item() == close(dC_da_prev, rel=1e-12)

    def cost(values):
        return (σ(w[2] * values[0] + b[2]) - y) ** 2

    assert nudged(cost, [a_prev], 0) == close(dC_da_prev, rel=1e-7)


def test_one_neuron_back_to_the_first_weight():
    """The same chain rule, layer after layer: δ_prev = w δ σ′(z_prev)."""
    z, a, _ = chain(w, b)

    δ = [0.0, 0.0, 0.0]
    δ[2] = 2 * (a[3] - y) * σ_prime(z[2])
    δ[1] = w[2] * δ[2] * σ_prime(z[1])
    δ[0] = w[1] * δ[1] * σ_prime(z[0])

    layers, _, _ = chain_of_layers()
    for L in range(3):
        dC_dw, dC_db = a[L] * δ[L], δ[L]
        assert layers[L].weight.grad.item() == close(dC_dw, rel=1e-12)
        assert layers[L].bias.grad.item() == close(dC_db, rel=1e-12)
        assert nudged(lambda w: chain(w, b)[2], w, L) == close(dC_dw, rel=1e-6)
        assert nudged(lambda b: chain(w, b)[2], b, L) == close(dC_db, rel=1e-6)


# --------------------------------------------------------------- several neurons in each layer

SIZES = (4, 3, 2)  # inputs, a hidden layer, outputs
EXAMPLES = 5


class Network:
    """Two layers, as lists of floats: W[l][j][k] leads from neuron k to neuron j."""

    def __init__(self):
        numbers = torch.Generator().manual_seed(3)

        def draw(*shape):
            return torch.randn(shape, generator=numbers, dtype=torch.double)

        self.first, self.last = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()
        with torch.no_grad():
            for p in (*self.first.parameters(), *self.last.parameters()):
                p.copy_(draw(*p.shape))
        self.x, self.y = draw(EXAMPLES, 4).sigmoid(), draw(EXAMPLES, 2).sigmoid()
        self.W = [self.first.weight.tolist(), self.last.weight.tolist()]
        self.b = [self.first.bias.tolist(), self.last.bias.tolist()]

    def forward(self, x):
        """zⱼ = Σₖ wⱼₖ aₖ + bⱼ and aⱼ = σ(zⱼ), for one example."""
        z, a = [], [x]
        for W, b in zip(self.W, self.b, strict=True):
            z.append(
                [sum(W[j][k] * a[-1][k] for k in range(len(a[-1]))) + b[j] for j in range(len(b))]
            )
            a.append([σ(z_j) for z_j in z[-1]])
        return z, a

    def cost(self, x, y):
        """C₀ = Σⱼ (aⱼ − yⱼ)², for one example."""
        _, a = self.forward(x)
        return sum((a[-1][j] - y[j]) ** 2 for j in range(len(y)))

    def mean_cost(self):
        """C = (1/n) Σ C₀."""
        costs = [self.cost(x, y) for x, y in zip(self.x.tolist(), self.y.tolist(), strict=True)]
        return sum(costs) / len(costs)

    def backward(self, x, y):
        """The gradients that the layers find for these examples: weights, biases, activations."""
        x = x.clone().requires_grad_()
        hidden = nn.Sigmoid()(self.first(x))
        hidden.retain_grad()
        output = nn.Sigmoid()(self.last(hidden))
        output.retain_grad()
        for p in (*self.first.parameters(), *self.last.parameters()):
            p.grad = None
        nn.SquaredError()(output, y).backward()
        weights = [self.first.weight.grad, self.last.weight.grad]
        biases = [self.first.bias.grad, self.last.bias.grad]
        return weights, biases, [x.grad, hidden.grad, output.grad]

    def nudge(self, numbers, i, cost, by=1e-6):
        """ΔC / Δ for one entry of one list of weights or biases, changed in its place."""
        kept = numbers[i]
        numbers[i] = kept + by
        up = cost()
        numbers[i] = kept - by
        down = cost()
        numbers[i] = kept
        return (up - down) / (2 * by)


@pytest.fixture
def net():
    return Network()


@pytest.fixture
def example(net):
    """One training example, as floats, with its z, a, and the gradients that the layers found."""
    x, y = net.x[0].tolist(), net.y[0].tolist()
    z, a = net.forward(x)
    return x, y, z, a, net.backward(net.x[:1], net.y[:1])


def test_a_weight_of_the_last_layer(net, example):
    """∂C₀/∂wⱼₖ = aₖ · σ′(zⱼ) · 2(aⱼ − yⱼ)."""
    x, y, z, a, (weights, _, _) = example
    for j in range(2):
        for k in range(3):
            dC_dw = 2 * (a[2][j] - y[j]) * σ_prime(z[1][j]) * a[1][k]
            assert weights[1][j, k].item() == close(dC_dw, rel=1e-12)
            nudge = net.nudge(net.W[1][j], k, lambda: net.cost(x, y))
            assert nudge == close(dC_dw, rel=1e-6, abs=1e-9)


def test_a_bias_of_the_last_layer(net, example):
    """∂C₀/∂bⱼ = σ′(zⱼ) · 2(aⱼ − yⱼ): the same without aₖ."""
    x, y, z, a, (_, biases, _) = example
    for j in range(2):
        dC_db = 2 * (a[2][j] - y[j]) * σ_prime(z[1][j])
        assert biases[1][j].item() == close(dC_db, rel=1e-12)
        assert net.nudge(net.b[1], j, lambda: net.cost(x, y)) == close(dC_db, rel=1e-6, abs=1e-9)


def test_an_output(example):
    """∂C₀/∂aⱼ = 2(aⱼ − yⱼ) at the output."""
    _, y, _, a, (_, _, activations) = example
    for j in range(2):
        assert activations[2][0, j].item() == close(2 * (a[2][j] - y[j]), rel=1e-12)


def test_a_previous_activation_is_a_sum_over_paths(net, example):
    """∂C₀/∂aₖ = Σⱼ wⱼₖ σ′(zⱼ) ∂C₀/∂aⱼ: one path through each neuron of the next layer."""
    _, y, z, a, (_, _, activations) = example
    for k in range(3):
        paths = [net.W[1][j][k] * σ_prime(z[1][j]) * 2 * (a[2][j] - y[j]) for j in range(2)]
        dC_da = sum(paths)
        assert activations[1][0, k].item() == close(dC_da, rel=1e-12)

        def cost(hidden):
            z = [sum(net.W[1][j][k] * hidden[k] for k in range(3)) + net.b[1][j] for j in range(2)]
            return sum((σ(z[j]) - y[j]) ** 2 for j in range(2))

        assert nudged(cost, a[1], k) == close(dC_da, rel=1e-6, abs=1e-9)


def test_a_hidden_weight(net, example):
    """δₖ = (Σⱼ wⱼₖ δⱼ) σ′(zₖ), and again ∂C₀/∂w = a_prev δ, ∂C₀/∂b = δ: the rule repeats itself."""
    x, y, z, a, (weights, biases, activations) = example

    δ_last = [2 * (a[2][j] - y[j]) * σ_prime(z[1][j]) for j in range(2)]
    δ_hidden = [
        sum(net.W[1][j][k] * δ_last[j] for j in range(2)) * σ_prime(z[0][k]) for k in range(3)
    ]

    for k in range(3):
        assert biases[0][k].item() == close(δ_hidden[k], rel=1e-12)
        nudge = net.nudge(net.b[0], k, lambda: net.cost(x, y))
        assert nudge == close(δ_hidden[k], rel=1e-6, abs=1e-9)
        for i in range(4):
            dC_dw = a[0][i] * δ_hidden[k]
            assert weights[0][k, i].item() == close(dC_dw, rel=1e-12)
            nudge = net.nudge(net.W[0][k], i, lambda: net.cost(x, y))
            assert nudge == close(dC_dw, rel=1e-6, abs=1e-9)

    for i in range(4):  # and back to the pixels
        dC_dx = sum(net.W[0][k][i] * δ_hidden[k] for k in range(3))
        assert activations[0][0, i].item() == close(dC_dx, rel=1e-12)


def test_the_mean_over_examples(net):
    """C = (1/n) Σₓ Cₓ, so ∂C/∂w is the mean of what each example asks for."""
    weights, biases, _ = net.backward(net.x, net.y)
    each = [net.backward(net.x[n : n + 1], net.y[n : n + 1]) for n in range(EXAMPLES)]
    for layer in range(2):
        for j in range(SIZES[layer + 1]):
            mean = sum(b[layer][j].item() for _, b, _ in each) / EXAMPLES
            assert biases[layer][j].item() == close(mean, rel=1e-12)
            nudge = net.nudge(net.b[layer], j, net.mean_cost)
            assert nudge == close(mean, rel=1e-6, abs=1e-9)
            for k in range(SIZES[layer]):
                mean = sum(w[layer][j, k].item() for w, _, _ in each) / EXAMPLES
                assert weights[layer][j, k].item() == close(mean, rel=1e-12)
                nudge = net.nudge(net.W[layer][j], k, net.mean_cost)
                assert nudge == close(mean, rel=1e-6, abs=1e-9)


def test_the_matrix_form(net, example):
    """δ = 2(a − y) ⊙ σ′(z),  ∂C₀/∂W = δ a_prevᵀ,  δ_prev = (Wᵀ δ) ⊙ σ′(z_prev)."""
    _, y, z, a, (weights, biases, _) = example
    z, a, y = vectors(z), vectors(a), torch.tensor(y, dtype=torch.double)

    def σ_prime(z):
        return torch.sigmoid(z) * (1 - torch.sigmoid(z))

    δ_last = 2 * (a[2] - y) * σ_prime(z[1])
    δ_hidden = (net.last.weight.detach().T @ δ_last) * σ_prime(z[0])

    assert_close(weights, [torch.outer(δ_hidden, a[0]), torch.outer(δ_last, a[1])])
    assert_close(biases, [δ_hidden, δ_last])


def vectors(lists):
    return [torch.tensor(numbers, dtype=torch.double) for numbers in lists]


def test_cross_entropy_instead():
    """Review question 5: with cross-entropy after a softmax σ′ cancels, δ = (p − e_y)/n."""
    z = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    digits = [2, 0, 1, 1]
    nn.CrossEntropyLoss()(z, torch.tensor(digits)).backward()
    for n in range(4):
        total = sum(exp(z_k) for z_k in z[n].tolist())
        for j in range(3):
            p_j, e_j = exp(z[n, j].item()) / total, 1 if j == digits[n] else 0
            assert z.grad[n, j].item() == close((p_j - e_j) / 4, rel=1e-12)
