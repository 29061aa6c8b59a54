"""torch.nn.functional, by formula: torch's names, signatures and defaults, nothing else.

Each function does what torch's function of the same name does, for the same arguments, and its
backward pass is the formula of :mod:`manualbp.formulas` that it applies. What torch has outside of
``torch.nn.functional`` (``torch.add``, ``torch.cat``, …) is here too, under its name. So is what
torch lacks, such as :func:`squared_error`, the document's cost.
"""

from types import FunctionType as _Function

from torch.fx import wrap as _wrap

from manualbp.functional import _autocast
from manualbp.functional._activation import *
from manualbp.functional._arithmetic import *
from manualbp.functional._attention import *
from manualbp.functional._conv import *
from manualbp.functional._ctc import *
from manualbp.functional._distance import *
from manualbp.functional._dropout import *
from manualbp.functional._linear import *
from manualbp.functional._loss import *
from manualbp.functional._matmul import *
from manualbp.functional._normalization import *
from manualbp.functional._padding import *
from manualbp.functional._pooling import *
from manualbp.functional._reduction import *
from manualbp.functional._rnn import *
from manualbp.functional._shape import *
from manualbp.functional._sparse import *
from manualbp.functional._vision import *

for _name in _autocast.LISTED & globals().keys():
    globals()[_name] = _autocast.as_torch_casts(globals()[_name])

# torch.fx records a call of one of these whole, because it cannot trace into a formula.
for _name in [name for name, value in vars().items() if isinstance(value, _Function)]:
    if not _name.startswith("_"):
        _wrap(_name)
