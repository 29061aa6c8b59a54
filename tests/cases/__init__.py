"""What is compared with torch: one row a case, one file for each file of `manualbp/formulas/`."""

from importlib import import_module
from pkgutil import iter_modules

from cases.table import *
from cases.table import _placed as _placed

_FILES = [import_module(f"cases.{file.name}") for file in iter_modules(__path__)]

CASES: list[Case] = [case for file in _FILES for case in getattr(file, "CASES", ())]
MODULES: list[Module] = [module for file in _FILES for module in getattr(file, "MODULES", ())]
