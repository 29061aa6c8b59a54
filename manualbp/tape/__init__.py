"""Formulas recorded as they run, and run backwards without autograd; a step as one program."""

from manualbp.tape.compiled_step import compile_step as compile_step
from manualbp.tape.entry import Entry as Entry
from manualbp.tape.tape import Tape as Tape
from manualbp.tape.tape import TapeError as TapeError
