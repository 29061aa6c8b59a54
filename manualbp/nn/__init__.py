"""torch.nn, by formula: each class is torch's own with its ``forward`` replaced.

Constructors, parameters, ``state_dict``, ``repr`` and behaviour are torch's; the backward pass is
the formula of the same name. :class:`SquaredError`, the document's cost, is the only addition.
"""

from manualbp.nn.activation import ELU as ELU
from manualbp.nn.activation import GELU as GELU
from manualbp.nn.activation import LeakyReLU as LeakyReLU
from manualbp.nn.activation import LogSoftmax as LogSoftmax
from manualbp.nn.activation import ReLU as ReLU
from manualbp.nn.activation import Sigmoid as Sigmoid
from manualbp.nn.activation import SiLU as SiLU
from manualbp.nn.activation import Softmax as Softmax
from manualbp.nn.activation import Softplus as Softplus
from manualbp.nn.activation import Tanh as Tanh
from manualbp.nn.container import Sequential as Sequential
from manualbp.nn.dropout import Dropout as Dropout
from manualbp.nn.flatten import Flatten as Flatten
from manualbp.nn.linear import Identity as Identity
from manualbp.nn.linear import Linear as Linear
from manualbp.nn.loss import BCEWithLogitsLoss as BCEWithLogitsLoss
from manualbp.nn.loss import CrossEntropyLoss as CrossEntropyLoss
from manualbp.nn.loss import MSELoss as MSELoss
from manualbp.nn.loss import NLLLoss as NLLLoss
from manualbp.nn.loss import SquaredError as SquaredError
