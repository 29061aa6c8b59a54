"""How the arguments of every formula may be drawn: ``draw(formula, Seeded(seed))``."""

from manualbp.verification.samples import activation as _activation  # noqa: F401
from manualbp.verification.samples import arithmetic as _arithmetic  # noqa: F401
from manualbp.verification.samples import attention as _attention  # noqa: F401
from manualbp.verification.samples import conv as _conv  # noqa: F401
from manualbp.verification.samples import ctc as _ctc  # noqa: F401
from manualbp.verification.samples import distance as _distance  # noqa: F401
from manualbp.verification.samples import dropout as _dropout  # noqa: F401
from manualbp.verification.samples import elementary as _elementary  # noqa: F401
from manualbp.verification.samples import linear as _linear  # noqa: F401
from manualbp.verification.samples import loss as _loss  # noqa: F401
from manualbp.verification.samples import margin as _margin  # noqa: F401
from manualbp.verification.samples import normalization as _normalization  # noqa: F401
from manualbp.verification.samples import padding as _padding  # noqa: F401
from manualbp.verification.samples import pooling as _pooling  # noqa: F401
from manualbp.verification.samples import reduction as _reduction  # noqa: F401
from manualbp.verification.samples import rnn as _rnn  # noqa: F401
from manualbp.verification.samples import shape as _shape  # noqa: F401
from manualbp.verification.samples import sparse as _sparse  # noqa: F401
from manualbp.verification.samples import vision as _vision  # noqa: F401
from manualbp.verification.samples.source import Seeded, Source
from manualbp.verification.samples.table import differentiable, draw, formulas, surrogate

__all__ = ["Seeded", "Source", "differentiable", "draw", "formulas", "surrogate"]
