"""``python -m manualbp``: the commands of :mod:`manualbp.commands`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

#: what the extra ``cli`` installs
NEEDS = ("jsonargparse", "docstring_parser", "rich")


def main(args: list[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Args:
        args: what follows the program's name; None: as the process was called.
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        needs = f"the command line needs {', '.join(missing)}"
        print(f"error: {needs}: pip install 'manualbp[cli]'", file=sys.stderr)
        return 2
    from manualbp.commands.line import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
