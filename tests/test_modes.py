"""How a formula is being run is asked in one module, in one spelling."""

import re
from pathlib import Path

import manualbp

SPELLINGS = re.compile(
    r"_are_functorch_transforms_active|is_compiling\b|is_dynamo_compiling|_is_tracing|_current_level"
    r"|_len_torch_dispatch_stack|torch\.is_grad_enabled|_is_any_autocast|is_autocast_enabled"
    r"|_has_storage\b"
)


def test_each_question_has_one_place():
    root = Path(manualbp.__file__).parent
    found = {
        f"{file.relative_to(root)}: {line.strip()}"
        for file in root.rglob("*.py")
        if file.name not in ("modes.py", "_autocast.py") and file.parent.name != "catalogue"
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(torch|forward_ad)\.", line) and SPELLINGS.search(line)
    }
    assert not found
