"""Errors that are printed without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can mend; the message says how."""
