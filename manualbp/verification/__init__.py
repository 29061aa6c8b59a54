"""Is this backward right? :func:`manualbp.verify`, and what it finds."""

from manualbp.verification.judging import verify
from manualbp.verification.report import Check, Finding, Report

__all__ = ["Check", "Finding", "Report", "verify"]
