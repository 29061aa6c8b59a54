"""Train a network on MNIST with hand-written gradients: the document's own by default."""

from __future__ import annotations

import sys
from pathlib import Path

from manualbp.training.cli import main as run

DEFAULT = Path(__file__).resolve().parent / "configs" / "3b1b.yaml"


def main(args: list[str] | None = None) -> int:
    return run(args, DEFAULT)


if __name__ == "__main__":
    sys.exit(main())
