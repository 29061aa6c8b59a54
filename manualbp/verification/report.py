"""What was found: findings, the checks that were made, and how both are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from manualbp.core.tables import table_lines

#: the kinds of findings that say that a gradient is not right
WRONG_KINDS = ("raises", "mutates", "nondeterministic", "wrong", "nan", "stale", "imprecise")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: ``"wrong"``; ``"imprecise"`` (right in exact arithmetic, but computed in less
            precision than its input has, or unstable); ``"nan"`` (not finite where the derivative
            is); ``"mutates"`` (writes into an input, a parameter or the gradient that arrives);
            ``"nondeterministic"``; ``"stale"`` (keeps what may change before the backward pass);
            ``"raises"``. Not against the verdict: ``"unsupported"``, and ``"kink"`` (the point
            had no derivative there, so others were drawn).
        path: of the module, ``""`` where there is none.
        argument: the name of the input or parameter, ``""`` where it concerns all.
        how: what is wrong, in a line.
        error: the largest error by the largest entry of the right gradient, or None.
    """

    kind: str
    path: str
    argument: str
    how: str
    error: float | None = None

    @property
    def against(self) -> bool:
        """Whether it says that a gradient is not right."""
        return self.kind in WRONG_KINDS

    @property
    def where(self) -> str:
        """Path and argument: ``encoder.0.norm: weight``."""
        return ": ".join(filter(None, (self.path, self.argument)))

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.where and f"[{self.where}]", self.how)))


@dataclass
class Check:
    """One kind of check: how often it was tried, the largest error, what did not apply and why.

    Attributes:
        name: what was compared.
        tried: how many times.
        error: the largest relative error that it saw, or None where it measures none.
        skipped: why it was not tried, or not everywhere; ``""`` where it was.
        path: of the module that was checked.
    """

    name: str
    tried: int = 0
    error: float | None = None
    skipped: str = ""
    path: str = ""

    def saw(self, error: float | None) -> None:
        """Count one comparison, and its error."""
        self.tried += 1
        if error is not None and math.isfinite(error):
            self.error = max(error, self.error or 0.0)


@dataclass(eq=False)
class Report:
    """What :func:`manualbp.verify` found.

    ``print(report)`` gives the table, whose first line is the verdict; ``assert report`` and
    ``if report`` ask for ``ok``.

    Attributes:
        subject: what was verified.
        findings: a list of :class:`Finding`, the one to mend first first.
        checks: a list of :class:`Check`.
    """

    subject: str
    findings: list[Finding] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """False if and only if a finding says that a gradient is not right."""
        return not any(finding.against for finding in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def verdict(self) -> str:
        """The first line of the table."""
        if self.ok:
            tried = sum(check.tried for check in self.checks)
            return f"{self.subject}: right in {tried} comparisons"
        first, count = self.findings[0], sum(f.against for f in self.findings)
        more = f" (and {count - 1} more)" if count > 1 else ""
        where = f" [{first.where}]" if first.where else ""
        return f"{self.subject}: {_VERDICTS[first.kind]}{where}: {first.how}{more}"

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.findings:
            head = ("finding", "where", "error", "how")
            lines += ["", *table_lines(head, [_row(finding) for finding in self.findings])]
        head = ("check", "tried", "largest error", "not tried, because")
        rows = [(c.name, str(c.tried), _number(c.error), c.skipped) for c in self._summed()]
        return "\n".join([*lines, "", *table_lines(head, rows)])

    def __repr__(self) -> str:
        return f"<Report {'ok' if self.ok else 'not ok'}: {self.verdict}>"

    def _summed(self) -> list[Check]:
        """The checks of all paths together."""
        found: dict[str, Check] = {}
        for check in self.checks:
            known = found.setdefault(check.name, replace(check, tried=0, error=None))
            known.tried += check.tried
            known.error = max(filter(None, (known.error, check.error)), default=check.error)
            known.skipped = known.skipped or check.skipped
        return list(found.values())

    def raise_if_failed(self) -> None:
        """Raise ``AssertionError``, with the table, unless ``ok``."""
        if not self.ok:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """``subject``, ``ok``, ``verdict``, ``findings`` and ``checks``, in Python's own types."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "verdict": self.verdict,
            "findings": [_finite(asdict(finding)) for finding in self.findings],
            "checks": [_finite(asdict(check)) for check in self.checks],
        }

    def to_json(self, **options: Any) -> str:
        """``to_dict()`` as JSON; ``options`` are those of ``json.dumps``."""
        return json.dumps(self.to_dict(), **{"ensure_ascii": False, **options})


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Each once, those against the verdict first: what was found first explains the rest."""
    return sorted(dict.fromkeys(findings), key=lambda finding: not finding.against)


_VERDICTS = {
    "wrong": "the gradient is wrong",
    "imprecise": "the gradient is imprecise",
    "nan": "the gradient is not finite",
    "mutates": "it writes into what is not its own",
    "nondeterministic": "it is not deterministic",
    "stale": "it keeps what may change before the backward pass",
    "raises": "the backward pass raises",
}


def _row(finding: Finding) -> tuple[str, str, str, str]:
    return finding.kind, finding.where or "—", _number(finding.error), finding.how


def _number(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"


def _finite(entries: dict[str, Any]) -> dict[str, Any]:
    """JSON has no number that is not finite."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entries.items()
    }
