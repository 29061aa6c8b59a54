"""The mathematics: a class a formula, its value and one rule for each gradient.

One notation throughout, rows of a matrix being examples: z the weighted sum, a the activation,
W and b weights and biases, y the desired output, C the cost, g = ∂C/∂output the gradient that
arrives from above, called δ where the output is a z, n the number of examples, e_y the unit
vector of class y, ⊙ the product entry by entry.
"""

from manualbp.formulas.activation import ELU as ELU
from manualbp.formulas.activation import GELU as GELU
from manualbp.formulas.activation import LeakyReLU as LeakyReLU
from manualbp.formulas.activation import LogSoftmax as LogSoftmax
from manualbp.formulas.activation import ReLU as ReLU
from manualbp.formulas.activation import Sigmoid as Sigmoid
from manualbp.formulas.activation import SiLU as SiLU
from manualbp.formulas.activation import Softmax as Softmax
from manualbp.formulas.activation import Softplus as Softplus
from manualbp.formulas.activation import Tanh as Tanh
from manualbp.formulas.dropout import Dropout as Dropout
from manualbp.formulas.linear import Linear as Linear
from manualbp.formulas.loss import MSE as MSE
from manualbp.formulas.loss import NLL as NLL
from manualbp.formulas.loss import BCEWithLogits as BCEWithLogits
from manualbp.formulas.loss import CrossEntropy as CrossEntropy
from manualbp.formulas.loss import SquaredError as SquaredError
from manualbp.formulas.shape import Flatten as Flatten
