"""Errors whose message is all that the user needs: printed without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that only the user can mend; the message says what and how."""
