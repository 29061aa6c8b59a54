"""The mathematics: a class a formula, its value and one rule for each gradient.

One notation throughout, rows of a matrix being examples: z the weighted sum, a the activation,
W and b weights and biases, y the desired output, C the cost, g = ∂C/∂output the gradient that
arrives from above, called δ where the output is a z, n the number of examples, e_y the unit
vector of class y, ⊙ the product entry by entry.
"""

from manualbp.formulas.activation import *
from manualbp.formulas.arithmetic import *
from manualbp.formulas.attention import *
from manualbp.formulas.conv import *
from manualbp.formulas.ctc import *
from manualbp.formulas.distance import *
from manualbp.formulas.dropout import *
from manualbp.formulas.elementary import *
from manualbp.formulas.linear import *
from manualbp.formulas.loss import *
from manualbp.formulas.margin import *
from manualbp.formulas.matmul import *
from manualbp.formulas.normalization import *
from manualbp.formulas.padding import *
from manualbp.formulas.pooling import *
from manualbp.formulas.reduction import *
from manualbp.formulas.rnn import *
from manualbp.formulas.shape import *
from manualbp.formulas.sparse import *
from manualbp.formulas.vision import *
