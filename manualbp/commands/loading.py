"""What a command line names: ``path/to/file.py:Name``, ``package.module:name``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.autograd import Function

from manualbp.commands.line import near
from manualbp.training.errors import UserError

#: where it is, its dotted name there, and arguments to call it with
NAMED = re.compile(r"(?P<where>.+?):(?P<name>[^\W\d][\w.]*)(?P<call>\(.*\))?", re.S)


def is_path(text: str) -> bool:
    """Whether it says where something is, and is not a name of ours."""
    return ":" in text or text.endswith(".py") or "/" in text or "." in text


def subject(text: str) -> Any:
    """The Function, module or function that ``text`` leads to.

    A class of modules is called, and so is a function that returns a module, or a Function,
    without arguments.

    Raises:
        UserError: there is none; says why.
    """
    found, called = _named(text)
    if isinstance(found, nn.Module) or _is_function(found):
        return found
    if isinstance(found, type):
        if not issubclass(found, nn.Module):
            raise UserError(f"{text} is a class, but neither a Function nor a module")
        return _built(found, text)
    if not callable(found):
        kind = type(found).__name__
        raise UserError(f"{text} is of {kind}: expected a Function, a module or a function")
    return found if called or _needs_arguments(found) else _returned(found)


def function(text: str) -> Callable[..., Any]:
    """The function that ``text`` leads to; of a Function its ``apply``."""
    found = subject(text)
    return found.apply if _is_function(found) else found


def cost(text: str) -> Callable[..., Any]:
    """A cost: a name in torch.nn.functional, or what ``text`` leads to."""
    if is_path(text):
        return function(text)
    names = [n for n, f in vars(nn.functional).items() if callable(f) and not n.startswith("_")]
    if text in names:
        return getattr(nn.functional, text)
    if isinstance(getattr(nn, text, None), type):
        raise UserError(f"--cost {text} is a class of torch.nn: write --cost torch.nn:{text}")
    hint = f"near to it: {', '.join(meant)}" if (meant := near(text, names)) else "as in mse_loss"
    raise UserError(f"--cost {text}: expected a name in torch.nn.functional ({hint}), or FILE:NAME")


def where(error: BaseException) -> str:
    """The last line of somebody's own code that an error came through: ``net.py:12``."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(ours) and Path(f.filename).is_file()]
    return f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else ""


def told(error: BaseException) -> str:
    """The error in a line, and where in somebody's own code it came from."""
    line = " ".join(str(error).strip().split("\n")[:1])[:200]
    at = where(error)
    return f"{type(error).__name__}: {line}".rstrip(": ") + (f" ({at})" if at else "")


# ------------------------------------------------------------------------------- by name


def _named(text: str) -> tuple[Any, bool]:
    """What is called so, and whether it was called with arguments."""
    parts = NAMED.fullmatch(text)
    if parts is None:
        place = text.rstrip(":")
        module = _module(place)
        raise UserError(f"{place}: which name in it? {_names_in(module)}, as in {place}:NAME")
    module = _module(parts["where"])
    found: Any = module
    here, sign = parts["where"], ":"
    for name in parts["name"].split("."):
        if not hasattr(found, name):
            meant = near(name, [n for n in dir(found) if not n.startswith("_")])
            hint = f"; near to it: {', '.join(meant)}" if meant else ""
            if not meant and found is module:
                hint = f"; it has {_names_in(module)}"
            raise UserError(f"{here} has no {name}{hint}")
        found = getattr(found, name)
        here, sign = f"{here}{sign}{name}", "."
    if parts["call"] is None:
        return found, False
    positional, keywords = _arguments(parts["call"], text)
    try:
        return found(*positional, **keywords), True
    except Exception as error:
        raise UserError(f"{text} raises {told(error)}") from error


def _arguments(call: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        node = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(node, ast.Call)
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
        return [ast.literal_eval(argument) for argument in node.args], keywords
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(f"{text}: expected numbers, strings or lists in the brackets") from None


def _module(place: str) -> ModuleType:
    if place.endswith(".py") or "/" in place:
        return _file(place)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m has it
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise UserError(f"{place} cannot be imported: {told(error)}") from error
        raise UserError(
            f"there is no module {error.name}, in this folder or installed; of a file write "
            f"path/to/file.py:NAME"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{place} cannot be imported: {told(error)}") from error


def _file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        beside = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = f"; near to it: {', '.join(meant)}" if (meant := near(place, beside)) else ""
        raise UserError(f"there is no file {place}{hint}")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path.resolve()):
            return known
        name = f"{name}_to_verify"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{place} is not a file of Python: expected path/to/file.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside it, it may import
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[name]
        raise UserError(f"{place} cannot be imported: {told(error)}") from error
    return module


def _names_in(module: ModuleType) -> str:
    """What a module has that may be verified."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", "") == module.__name__ or isinstance(value, nn.Module))
        and callable(value)
    ]
    return ", ".join(own[:8]) + (", …" if own[8:] else "") if own else "nothing to verify"


# ------------------------------------------------------------------------------- by kind


def _is_function(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Function)


def _needs_arguments(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return True
    return False


def _built(cls: type[nn.Module], text: str) -> nn.Module:
    if _needs_arguments(cls):
        what = f"{cls.__name__}{inspect.signature(cls)}"
        raise UserError(f"{what} needs arguments: write them, as in '{text}(...)'")
    try:
        return cls()
    except Exception as error:
        raise UserError(f"{text} raises {told(error)}") from error


def _returned(found: Callable[..., Any]) -> Any:
    """What a builder returns; any other function is what is verified itself."""
    takes_inputs = any(
        p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)
        for p in inspect.signature(found).parameters.values()
    )
    name = getattr(found, "__name__", "it")
    try:
        made = found()
    except Exception as error:
        if takes_inputs:
            return found
        raise UserError(f"{name}() raises {told(error)}") from error
    if isinstance(made, nn.Module) or _is_function(made):
        return made
    if takes_inputs:
        return found
    raise UserError(
        f"{name}() returns a value of {type(made).__name__}: expected it to take inputs, or to "
        "return a module or a Function"
    )
