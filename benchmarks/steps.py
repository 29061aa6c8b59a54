"""One way to train one network, timed on request: a worker of benchmarks/report.py.

python benchmarks/steps.py "torch.nn eager" 784-16-16-10 32
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from itertools import pairwise

import numpy

#: seconds that a turn takes, roughly
TURN = 0.25


def data(widths: list[int], batch: int, steps: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    rng = numpy.random.default_rng(0)
    x = rng.random((steps, batch, widths[0]), dtype=numpy.float32)
    y = numpy.eye(widths[-1], dtype=numpy.float32)[rng.integers(widths[-1], size=(steps, batch))]
    return x, y


def torch_step(way: str, widths: list[int], batch: int, device: str) -> tuple[Callable, int]:
    """A call that trains, and how many steps it makes."""
    import torch

    import manualbp

    theirs = way.startswith("torch")
    nn = torch.nn if theirs else manualbp.nn
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Sigmoid())]
    net = torch.nn.Sequential(*layers).to(device)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    steps = 8 if way.endswith("8 a call") else 1
    xs, ys = (torch.from_numpy(a).to(device) for a in data(widths, batch, steps))
    x, y = xs[0], ys[0]

    def sync() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    if way == "matrix products alone":
        weights = [m.weight.detach() for m in layers if hasattr(m, "weight")]
        values = [torch.rand(batch, width, device=device) for width in widths]

        def products() -> None:
            for i, w in enumerate(weights):
                torch.mm(values[i], w.t())
            for i, w in enumerate(weights):
                torch.mm(values[i + 1].t(), values[i])
                if i:
                    torch.mm(values[i + 1], w)
            sync()

        return products, 1
    if way.startswith("compiled step"):
        step = manualbp.compile_step(net, criterion, optimizer)
        return (
            (lambda: (step.many(xs, ys), sync()), 8)
            if steps > 1
            else (
                lambda: (step(x, y), sync()),
                1,
            )
        )
    if way == "tape":

        def taped() -> None:
            optimizer.zero_grad()
            with manualbp.Tape() as tape:
                cost = criterion(net(x), y)
            tape.backprop(cost)
            optimizer.step()
            sync()

        return taped, 1
    if way == "torch.compile":
        net = torch.compile(net)

    def step() -> None:
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()
        sync()

    return step, 1


def jax_step(way: str, widths: list[int], batch: int) -> tuple[Callable, int]:
    import jax
    import jax.numpy as jnp

    rng = numpy.random.default_rng(0)
    weights = [
        (jnp.asarray(rng.normal(0, a**-0.5, (a, b)), jnp.float32), jnp.zeros(b))
        for a, b in pairwise(widths)
    ]

    def cost(weights, x, y):
        for w, b in weights:
            x = jax.nn.sigmoid(x @ w + b)
        return jnp.mean((x - y) ** 2)

    def step(weights, batch):
        value, gradients = jax.value_and_grad(cost)(weights, *batch)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients), value

    steps = 8 if way.endswith("8 a call") else 1
    xs, ys = (jnp.asarray(a) for a in data(widths, batch, steps))
    batches = (xs, ys) if steps > 1 else (xs[0], ys[0])
    program = jax.jit(
        (lambda weights, batches: jax.lax.scan(step, weights, batches)) if steps > 1 else step,
        donate_argnums=0,
    )

    def run() -> None:
        nonlocal weights
        weights, value = program(weights, batches)
        value.block_until_ready()

    return run, steps


def main(way: str, widths: str, batch: str, device: str = "cpu") -> None:
    """Answer each line of input with the seconds a step that a turn took."""
    sizes = [int(w) for w in widths.split("-")]
    if way.startswith("JAX"):
        run, steps = jax_step(way, sizes, int(batch))
    else:
        run, steps = torch_step(way, sizes, int(batch), device)
    timer = timeit.Timer(run)
    timer.timeit(5)
    number, taken = timer.autorange()
    calls = max(1, round(number * TURN / taken))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(timer.timeit(calls) / calls / steps, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
