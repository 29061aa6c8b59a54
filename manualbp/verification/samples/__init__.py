"""How the arguments of every formula may be drawn: ``draw(formula, Seeded(seed))``."""

from manualbp.verification.samples import activation as _activation  # noqa: F401
from manualbp.verification.samples import arithmetic as _arithmetic  # noqa: F401
from manualbp.verification.samples import elementary as _elementary  # noqa: F401
from manualbp.verification.samples.source import Seeded, Source
from manualbp.verification.samples.table import differentiable, draw, formulas, surrogate

__all__ = ["Seeded", "Source", "differentiable", "draw", "formulas", "surrogate"]
