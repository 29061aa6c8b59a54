"""See, verify and change the backward pass of real PyTorch models."""

from manualbp import formulas as formulas
from manualbp import functional as functional
from manualbp import kernels as kernels
from manualbp import nn as nn
from manualbp.convert import convert as convert
from manualbp.convert import revert as revert
from manualbp.coverage import coverage as coverage
from manualbp.formula import Formula as Formula
from manualbp.formula import rule as rule
from manualbp.intercept import intercept as intercept
from manualbp.step import compile_step as compile_step
from manualbp.tape import Tape as Tape

__version__ = "0.1.0"
