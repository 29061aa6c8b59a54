"""The commands of ``python -m manualbp``.

A file ``_<name>.py`` is a command. It has one function of that name, which returns the exit status:
its signature and its docstring are the options and the help.
"""
