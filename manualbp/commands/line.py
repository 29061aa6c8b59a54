"""From functions to a command line: signatures are its options, and docstrings its help."""

from __future__ import annotations

import difflib
import io
import os
import pkgutil
import re
import sys
from argparse import SUPPRESS, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import Parameter, getdoc, signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser

import manualbp
from manualbp.training.errors import UserError

RIGHT, WRONG, NOT_RUN = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141  # what a shell reports for SIGINT and SIGPIPE

Command = Callable[..., int]

#: options that have a letter as well
SHORT = {"output": "-o"}


def run(args: list[str] | None = None) -> int:
    """Run the command that ``args`` name, and return its exit status.

    What the user can mend is one line on stderr, and exit status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where σ is no letter, a mark stands for it
            stream.reconfigure(errors="replace")
    known = commands()
    args = sys.argv[1:] if args is None else args
    parser, options = _parser(known)
    if not args:
        parser.print_help()
        return RIGHT
    try:
        parsed = parser.parse_args(args)
        name = parsed.command
        status = _call(known[name], parsed[name])
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error))
    except ArgumentError as error:
        return _fail(_mended(str(error), [*known, *options]))
    except SystemExit as stopped:  # --help, --version
        return int(stopped.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as in: python -m manualbp formulas | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def program() -> str:
    """What was typed to start it."""
    called = Path(sys.argv[0]).stem
    return "manualbp" if called == "manualbp" else "python -m manualbp"


def commands() -> dict[str, Command]:
    """Each command by its name."""
    package = import_module("manualbp.commands")
    files = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("_")]
    modules = {name[1:]: import_module(f"manualbp.commands.{name}") for name in files}
    return {name: getattr(module, name) for name, module in modules.items()}


def near(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Those of ``known`` that are spelled like ``name``, in capitals or not."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[each] for each in found]


# ------------------------------------------------------------------------------- parsers


class _Help(RawDescriptionHelpFormatter):
    """Help of one column of names and one of words, whatever jsonargparse would add."""

    def __init__(self, prog: str, **_: Any) -> None:
        super().__init__(prog, max_help_position=20, width=80)


def _parser(known: dict[str, Command]) -> tuple[ArgumentParser, list[str]]:
    """The parser of all commands, and the options of any."""
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {_first_line(command)}" for name, command in known.items()]
    parser = ArgumentParser(
        prog=program(),
        usage=f"{program()} COMMAND [options]",
        description="\n".join(["The commands:", *lines]),
        epilog=f"{program()} COMMAND --help says more of one.",
        version=manualbp.__version__,
        formatter_class=_Help,
        exit_on_error=False,
    )
    subcommands = parser.add_subcommands(  # which the description lists
        dest="command", required=True, help=SUPPRESS, description=SUPPRESS
    )
    options = []
    for name, command in known.items():
        made = _parser_of(name, command)
        options += [o for action in made._actions for o in action.option_strings]
        subcommands.add_subcommand(name, made)
    return parser, options


def _parser_of(name: str, command: Command) -> ArgumentParser:
    text = docstring_parser.parse(getdoc(command) or "")
    about = {param.arg_name: param for param in text.params}
    hints = get_type_hints(command)
    usage = [f"{program()} {name}", "[options]"]
    parser = ArgumentParser(
        description=text.short_description,
        epilog=text.long_description,
        formatter_class=_Help,
        exit_on_error=False,
    )
    for parameter in signature(command).parameters.values():
        if parameter.kind is Parameter.VAR_POSITIONAL:  # of which the usage and the text speak
            metavar = parameter.name.removesuffix("s").upper()
            usage.insert(1, f"[{metavar} ...]")
            parser.add_argument(
                parameter.name,
                nargs="*",
                type=hints[parameter.name],
                metavar=metavar,
                help=SUPPRESS,
            )
            continue
        told = about[parameter.name]
        given: dict[str, Any] = {"help": " ".join((told.description or "").split())}
        if hints[parameter.name] is bool:
            given |= {"action": "store_true"}
        else:
            given |= {"metavar": told.type_name, "default": parameter.default}
            if isinstance(parameter.default, tuple):
                given |= {"action": "append", "default": []}
            else:
                given |= {"type": _without_none(hints[parameter.name])}
        short = [SHORT[parameter.name]] if parameter.name in SHORT else []
        # Without what keeps a name apart from a word of Python: class_ is --class.
        option = parameter.name.removesuffix("_")
        parser.add_argument(*short, f"--{option}", dest=parameter.name, **given)
    parser.usage = " ".join(usage)
    return parser


def _without_none(hint: Any) -> Any:
    """The type of what is written, where nothing stands for None."""
    return next((each for each in get_args(hint) if each is not type(None)), hint)


def _first_line(command: Command) -> str:
    return (getdoc(command) or "").partition("\n")[0]


def _call(command: Command, parsed: Any) -> int:
    positional: list[Any] = []
    options = {}
    for parameter in signature(command).parameters.values():
        value = parsed[parameter.name]
        if parameter.kind is Parameter.VAR_POSITIONAL:
            positional = value or []
        else:
            options[parameter.name] = value
    return command(*positional, **options)


# ------------------------------------------------------------------------------- errors


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return NOT_RUN


def _mended(message: str, known: Iterable[str]) -> str:
    """What jsonargparse says, and what may have been meant."""
    message = " ".join(message.split())
    if found := re.match(r'Parser key "(\w+)": (.*)', message):
        message = f"--{found[1].removesuffix('_')}: {found[2]}"
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)|invalid choice: '([^']*)'", message)
    if unknown is None:
        return message
    name = unknown[1] or unknown[2]
    meant = near(name, [each for each in known if each.startswith("-") == name.startswith("-")])
    what = "option" if name.startswith("-") else "command"
    hint = f"; near to it: {', '.join(meant)}" if meant else f"; {program()} --help lists them"
    return f"there is no {what} {name}{hint}"
