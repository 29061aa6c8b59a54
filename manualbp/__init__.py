"""See, verify and change the backward pass of real PyTorch models.

Formulas, and layers made of them:

- ``formulas``: the mathematics, a class a formula; ``Formula``, ``rule``: to state and change one
- ``functional``: torch.nn.functional, by formula
- ``nn``: torch.nn, by formula
- ``kernels``: faster ways to the same numbers, which can be switched off

Models as they are:

- ``convert(model)``, ``revert(model)``: torch's layers by formula, in place, and back
- ``intercept()``: inside, torch's own functions run by formula
- ``coverage(cost)``: whose derivative each step of a backward pass is

Is this backward right?

- ``verify(f, *inputs)``: a report on a formula, a Function, a function, a module, a whole model

What is inside this backward?

- ``trace(model, x, y, cost=criterion)``: every value and gradient of one pass, layer by layer
- ``per_example_grads(model, x, y, cost=…)``, ``per_example_norms(…)``: of each example alone
- ``clipped_grads(model, x, y, cost=…, max_norm=…)``: their sum, none longer than a bound
- ``nudge(model, x, y, "0.weight", 3, 407, by=0.01, cost=criterion)``: what moving a weight does to
  each layer and the cost, predicted and measured
- ``plots``: all of it in pictures, with matplotlib

Ways to run formulas without autograd:

- ``Tape()``: records them, and runs their rules backwards: ``tape.backprop(cost)``
- ``compile_step(net, criterion, optimizer)``: a whole training step as one program
"""

from manualbp import formulas, functional, kernels, nn
from manualbp.conversion.interception import intercept
from manualbp.conversion.modules import convert, revert
from manualbp.conversion.report import coverage
from manualbp.core.formula import Formula, rule
from manualbp.see import clipped_grads, nudge, per_example_grads, per_example_norms, plots, trace
from manualbp.tape import Tape, compile_step
from manualbp.verification import verify

__all__ = [
    "Formula",
    "Tape",
    "clipped_grads",
    "compile_step",
    "convert",
    "coverage",
    "formulas",
    "functional",
    "intercept",
    "kernels",
    "nn",
    "nudge",
    "per_example_grads",
    "per_example_norms",
    "plots",
    "revert",
    "rule",
    "trace",
    "verify",
]

__version__ = "0.1.0"
