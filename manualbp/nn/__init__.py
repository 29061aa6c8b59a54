"""torch.nn, by formula: each class is torch's own with its ``forward`` replaced.

Constructors, parameters, ``state_dict``, ``repr`` and behaviour are torch's; the backward pass is
the formula of the same name. What torch lacks, such as :class:`SquaredError`, the document's cost,
is a ``torch.nn.Module`` of its own.
"""

from manualbp.nn._registration import register
from manualbp.nn.activation import *
from manualbp.nn.attention import *
from manualbp.nn.container import *
from manualbp.nn.conv import *
from manualbp.nn.distance import *
from manualbp.nn.dropout import *
from manualbp.nn.flatten import *
from manualbp.nn.lazy import *
from manualbp.nn.linear import *
from manualbp.nn.loss import *
from manualbp.nn.normalization import *
from manualbp.nn.padding import *
from manualbp.nn.pooling import *
from manualbp.nn.rnn import *
from manualbp.nn.sparse import *
from manualbp.nn.vision import *

_HERE = [c for c in vars().values() if isinstance(c, type) and c.__module__.startswith(__name__)]
register(_HERE)
