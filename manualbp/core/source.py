"""The code of a formula: what saves its values, and what runs its rules or their kernels."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Size, Tensor

from manualbp.core.modes import is_dynamo_compiling, may_run_kernels, plain

#: the dtypes whose rules are computed in single precision, as torch's kernels compute them
HALF = (torch.float16, torch.bfloat16)


def write(formula: Any) -> str:
    """The Python of a formula whose signatures have been read.

    Returns:
        the source of ``keep`` and ``gradients``; where the formula has kernels, of
        ``with_kernels``, which is ``gradients`` with them where they may run, and of ``forward``.
    """
    functions = [_keep(formula), _gradients(formula, "gradients", ())]
    of_rules = [k for k in formula.kernels if formula.cls.forward not in k.of]
    of_forward = [k for k in formula.kernels if formula.cls.forward in k.of]
    if of_rules:
        functions.append(_gradients(formula, "with_kernels", formula.kernels))
    if of_forward:
        functions.append(_forward(formula, of_forward[0]))
    return "\n".join(functions)


def namespace(formula: Any) -> dict[str, Any]:
    """What the names mean in the code of :func:`write`."""
    name = formula.cls.__name__

    def no_rule(argument: str) -> None:
        raise NotImplementedError(
            f"{name} has no rule for the gradient of '{argument}': pass "
            f"{argument}.detach(), or subclass {name} and write grad_{argument}"
        )

    def too_few(given: Any) -> None:
        raise TypeError(
            f"{name}.grad_{formula.variadic} returned {len(given)} gradients for "
            f"{len(formula.variadic_arguments)} tensors: return one for each"
        )

    names = {f"_{method}": getattr(formula.cls, method) for method in formula.parameters}
    names |= {"_unbroadcast": unbroadcast, "_no_rule": no_rule, "_Tensor": Tensor}
    names |= {"_conjugates": conjugates, "_too_few": too_few, "_forward": formula.cls.forward}
    names |= {"_may_run_kernels": may_run_kernels, "_plain": plain, "_zeros": zeros}
    names |= {"_is_dynamo_compiling": is_dynamo_compiling}
    for i, kernel in enumerate(formula.kernels):
        names |= {f"_kernel{i}": kernel.function}
        names |= {f"_supported{i}": kernel.supported, f"_profitable{i}": kernel.profitable}
    return names | {"_HALF": HALF, "_in_single": in_single}


def num_saved(formula: Any) -> int:
    """How many values ``keep`` returns."""
    return len(_parameters(formula)) - 1 - len(formula.incoming)


@cache
def versions(saved: int, tensors: int | None) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A function of so many saved values, the first ``tensors`` of which are tensors or None.

    It gives how often each tensor has been changed in place. It is written out, because a loop
    takes twice as long.
    """
    if tensors is None:
        return lambda saved: tuple(v._version if isinstance(v, Tensor) else None for v in saved)
    names = [f"s{i}" for i in range(saved)]
    given = "".join(f"{s} is None or {s}._version, " for s in names[:tensors])
    unpacked = f"    {', '.join(names)}, = saved\n" if tensors else ""
    space: dict[str, Any] = {}
    code = f"def versions(saved):\n{unpacked}    return ({given})\n"
    compiled(code, f"<versions of {tensors} of {saved}>", space)
    found: Callable[[tuple[Any, ...]], tuple[Any, ...]] = space["versions"]
    return found


def compiled(source: str, filename: str, namespace: dict[str, Any]) -> None:
    """Define what ``source`` states in ``namespace``; a traceback shows its lines."""
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), namespace)


# ------------------------------------------------------------------------- functions written


def _keep(formula: Any) -> str:
    saved = [
        v  # no tensor: always saved, because it costs nothing
        if formula.kinds[v] is None
        else f"{v} if {_any_needed(a for a in formula.rules if v in formula.needs[a])} else None"
        for v in formula.saved
    ]
    saved += [
        f"{a}.shape if need_{a} and {_is_tensor(formula, a)} else None"
        for a in _broadcast_arguments(formula)
    ]
    saved += [f"({o}.shape, {o}.dtype)" for o in _noted(formula)]
    parameters = ("needs", *formula.arguments, *formula.outputs)
    return _function("keep", parameters, _unpack(formula), *_returned(saved))


def _gradients(formula: Any, name: str, kernels: tuple[Any, ...]) -> str:
    """``gradients``: each intermediate once, then the gradient of each argument."""
    replaced = _replaced(formula, kernels)
    lines = _unless_kernels_may_run(formula) if kernels else [_unpack(formula)]
    lines += _refused(formula)
    # Kernels run for real numbers alone.
    if formula.cls.holomorphic and formula.saved and not kernels:
        lines.append(_conjugated(formula))
    lines += _upcast(formula)
    fused = {}
    for i, kernel in enumerate(kernels):
        methods = [m for m in formula.parameters if replaced.get(m) == i]
        if not methods:  # of forward
            continue
        condition = _or(c for m in methods for c in _conditions_for(formula, m, {}))
        if kernel.conditional:
            asked = (_condition(formula, kernel, n, " and {}") for n in ("profitable", "supported"))
            lines.append(f"use{i} = ({condition}){''.join(asked)}")
            condition = f"use{i}"
        if len(kernel.of) > 1:
            fused[i] = _methods_of(formula, kernel)
            call = _kernel_call(formula, f"_kernel{i}", kernel)
            lines.append(f"fused{i} = {call} if {condition} else None")
    lines += _materialized(formula, replaced, kernels)

    def value(method: str) -> str:
        stated = _call(formula, f"_{method}", formula.parameters[method])
        i = replaced.get(method)
        if i is None:
            return stated
        if i in fused:
            faster = f"fused{i}[{fused[i].index(method)}]"
        else:
            faster = _kernel_call(formula, f"_kernel{i}", kernels[i])
        return f"({faster} if use{i} else {stated})" if kernels[i].conditional else faster

    for method in formula.intermediates:
        if conditions := _conditions_for(formula, method, replaced, kernels):
            lines.append(f"{method} = {value(method)} if {_or(conditions)} else None")
    count = len(formula.variadic_arguments)
    lines += [
        f"if {rule} is not None and len({rule}) != {count}: _too_few({rule})"
        for rule in dict.fromkeys(formula.rules[a] for a in formula.variadic_arguments)
    ]
    gradients = []
    for argument in formula.arguments:
        rule = formula.rules.get(argument)
        given = rule if rule in formula.intermediates else rule and value(rule)
        if argument in formula.variadic_arguments:
            given = f"{rule}[{formula.variadic_arguments.index(argument)}]"
        if argument in _broadcast_arguments(formula):
            given = f"_unbroadcast({given}, shape_{argument})"
        gradients.append(f"{given} if need_{argument} else None" if rule else "None")
    return _function(name, _parameters(formula), *lines, *_returned(gradients))


def _refused(formula: Any) -> list[str]:
    """An argument without a rule would otherwise get no gradient, silently."""
    without = [a for a in formula.arguments if a not in formula.rules]
    without = [a for a in without if formula.kinds[a] is not None]
    without = [a for a in without if f"grad_{a}" not in formula.without_gradient]
    return [f"if need_{a}: _no_rule('{a}')" for a in without]


def _replaced(formula: Any, kernels: tuple[Any, ...]) -> dict[str, int]:
    """For each method that a kernel computes, the index of the kernel."""
    return {
        method: i
        for i, kernel in enumerate(kernels)
        for method in formula.parameters
        if getattr(formula.cls, method) in kernel.of
    }


def _unless_kernels_may_run(formula: Any) -> list[str]:
    tensors = [g for g in formula.incoming if g in formula.used_grads]
    tensors += [v for v in formula.saved if formula.kinds[v] is not None]
    given = ", ".join(_parameters(formula))
    return [
        f"if not ({_any_profits(formula)}_may_run_kernels() and _plain({', '.join(tensors)})):",
        f"    return gradients({given})",
        _unpack(formula),
    ]


#: asked before a size is, which Dynamo would make a condition of the program
_UNTRACED = "not _is_dynamo_compiling()"


def _any_profits(formula: Any) -> str:
    """Asked first, because it costs less than to look at the tensors."""
    kernels = [k for k in formula.kernels if formula.cls.forward not in k.of]
    if any(k.profitable is None or "needs" in signature(k.profitable).parameters for k in kernels):
        return ""
    i = formula.kernels.index
    each = (_kernel_call(formula, f"_profitable{i(k)}", k, k.profitable) for k in kernels)
    return f"{_UNTRACED} and ({_or(each)}) and "


def _forward(formula: Any, kernel: Any) -> str:
    i = formula.kernels.index(kernel)
    tensors = [a for a in formula.arguments if formula.kinds[a] is not None]
    plain = f"_plain({', '.join(tensors)})"
    # The one may look at sizes alone, which is quick; the other at numbers, which only plain
    # tensors have.
    profits = _condition(formula, kernel, "profitable", f"{_UNTRACED} and {{}} and ")
    alike = _condition(formula, kernel, "supported", " and {}")
    return _function(
        "forward",
        formula.arguments,
        f"if {profits}_may_run_kernels() and {plain}{alike}:",
        f"    return {_kernel_call(formula, f'_kernel{i}', kernel)}",
        f"return _forward({', '.join(formula.arguments)})",
    )


def _condition(formula: Any, kernel: Any, name: str, form: str) -> str:
    """The call of a condition of a kernel in this form; nothing where the kernel states none."""
    function = getattr(kernel, name)
    i = formula.kernels.index(kernel)
    called = function and _kernel_call(formula, f"_{name}{i}", kernel, function)
    return form.format(called) if called else ""


def _conjugated(formula: Any) -> str:
    each = [f"{i} is not None and {i}.is_complex()" for i in formula.incoming]
    is_complex = " or ".join(each) if formula.multiple_outputs else "g.is_complex()"
    names = ", ".join(formula.saved)
    return f"if {is_complex}: {names}, = _conjugates({names})"


def _upcast(formula: Any) -> list[str]:
    """Where a gradient of half precision arrives, all values of half precision become single."""
    if not formula.cls.opmath or not formula.rules:
        return []
    values = (*formula.incoming, *(v for v in formula.saved if formula.kinds[v] is not None))
    names = "".join(f"{v}, " for v in values)
    used = [g for g in formula.incoming if g in formula.used_grads] or formula.incoming[:1]
    arrived = [f"({g} is not None and {g}.dtype in _HALF)" for g in used]
    is_half = _or(arrived) if formula.multiple_outputs else "g.dtype in _HALF"
    return [f"if {is_half}: {names}= _in_single({names})"]


def _may_be_unused(formula: Any) -> list[str]:
    """The outputs whose gradient a rule sums with others, so that it needs a zero for None."""
    used = [
        o for o, g in zip(formula.outputs, formula.incoming, strict=True) if g in formula.used_grads
    ]
    return used if len(used) > 1 else []


def _noted(formula: Any) -> list[str]:
    """The outputs that may go unused whose shape is noted.

    Of one that is saved for every rule that sums its gradient, the shape is there.
    """
    found = []
    for output in _may_be_unused(formula):
        summing = [m for m, names in formula.parameters.items() if f"g_{output}" in names]
        users = {c.removeprefix("need_") for m in summing for c in _conditions_for(formula, m, {})}
        if not all(output in formula.needs[a] for a in users):
            found.append(output)
    return found


def _materialized(formula: Any, replaced: dict[str, int], kernels: tuple[Any, ...]) -> list[str]:
    """A zero gradient for each output that went unused, unless kernels do all the work."""
    outputs = _may_be_unused(formula)
    if not outputs:
        return []
    by_rule = []
    for method, parameters in formula.parameters.items():
        i = replaced.get(method)
        if not {f"g_{o}" for o in outputs} & {*parameters}:
            continue
        if i is None:
            by_rule += _conditions_for(formula, method, replaced, kernels)
        elif kernels[i].conditional:
            needed = _conditions_for(formula, method, replaced, kernels)
            by_rule += [f"({condition} and not use{i})" for condition in needed]
    by_rule = list(dict.fromkeys(by_rule))
    incoming = ", ".join(f"g_{o}" for o in outputs)
    lines = []
    for o in outputs:
        there, form = "", f"form_{o}"
        if o not in _noted(formula):  # but saved, where a rule needs it
            there, form = f" and {o} is not None", f"({o}.shape, {o}.dtype)"
        lines.append(f"if g_{o} is None{there}: g_{o} = _zeros({form}, {incoming})")
    if not replaced:
        return lines
    return [f"if {_or(by_rule)}:", *(f"    {line}" for line in lines)] if by_rule else []


def _conditions_for(
    formula: Any, method: str, replaced: dict[str, int], kernels: tuple[Any, ...] = ()
) -> list[str]:
    """The conditions any of which makes the value of ``method`` needed.

    A method that a kernel replaces does not need the intermediates that it names.
    """
    found = [f"need_{a}" for a, rule in formula.rules.items() if rule == method]
    for other in (*formula.rules.values(), *formula.intermediates):
        if method not in formula.parameters[other] or other == method:
            continue
        conditions = _conditions_for(formula, other, replaced, kernels)
        if other in replaced:
            i = replaced[other]
            conditions = [f"{c} and not use{i}" for c in conditions if kernels[i].conditional]
        found += conditions
    return list(dict.fromkeys(found))


def _methods_of(formula: Any, kernel: Any) -> list[str]:
    """The names of the methods that a kernel computes all at once."""
    names = {getattr(formula.cls, method): method for method in formula.parameters}
    return [names[function] for function in kernel.of]


def _kernel_call(formula: Any, name: str, kernel: Any, function: Any = None) -> str:
    """A call of a kernel, or of a condition of its own: each names what it asks for.

    ``needs`` among that says of each rule whether it is needed.
    """
    parameters = signature(function or kernel.function).parameters
    needs = ""
    if "needs" in parameters:
        needed = (_or(_conditions_for(formula, m, {})) for m in _methods_of(formula, kernel))
        needs = f"({''.join(f'{w}, ' for w in needed)})"
    return _call(formula, name, [needs if p == "needs" else p for p in parameters])


def _call(formula: Any, name: str, parameters: Iterable[str]) -> str:
    one = not formula.multiple_outputs
    return f"{name}({', '.join('g' if p == 'delta' and one else p for p in parameters)})"


def _parameters(formula: Any) -> tuple[str, ...]:
    shapes = (f"shape_{a}" for a in _broadcast_arguments(formula))
    forms = (f"form_{o}" for o in _noted(formula))
    return ("needs", *formula.incoming, *formula.saved, *shapes, *forms)


def _broadcast_arguments(formula: Any) -> list[str]:
    """The arguments that may have been broadcast."""
    return [a for a in formula.rules if formula.cls.broadcasts]


def _unpack(formula: Any) -> str:
    return f"{''.join(f'need_{a}, ' for a in formula.arguments)}= needs"


def _is_tensor(formula: Any, argument: str) -> str:
    """A condition: cheap where only a tensor or None can come."""
    if formula.kinds[argument] is Tensor:
        return f"{argument} is not None"
    return f"isinstance({argument}, _Tensor)"


def _any_needed(users: Iterable[str]) -> str:
    return _or(f"need_{user}" for user in users)


def _or(conditions: Iterable[str]) -> str:
    return " or ".join(conditions)


def _function(name: str, parameters: Iterable[str], *body: str) -> str:
    return f"def {name}({', '.join(parameters)}):\n" + "".join(f"    {line}\n" for line in body)


def _returned(values: Iterable[str]) -> list[str]:
    return ["return (", *(f"    {value}," for value in values), ")"]


# -------------------------------------------------------------------------- functions called


def conjugates(*values: Any) -> tuple[Any, ...]:
    """The complex conjugate of each tensor and number, and everything else as it is."""
    return tuple(
        v.conj() if isinstance(v, Tensor) else v.conjugate() if isinstance(v, complex) else v
        for v in values
    )


def in_single(*values: Any) -> tuple[Any, ...]:
    """The values, tensors of half precision in single precision."""
    return tuple(v.float() if isinstance(v, Tensor) and v.dtype in HALF else v for v in values)


def zeros(form: tuple[Size, torch.dtype], *incoming: Tensor | None) -> Tensor:
    """The gradient of an output of this shape and dtype that went unused."""
    shape, dtype = form
    arrived = next(g for g in incoming if g is not None)
    # What arrived may be in single precision for the rules.
    return arrived.new_zeros(shape, dtype=arrived.dtype if dtype in HALF else dtype)


def unbroadcast(gradient: Tensor, shape: Size) -> Tensor:
    """Sum a gradient over the axes along which its argument, of ``shape``, was stretched."""
    return gradient if gradient.shape == shape else gradient.sum_to_size(shape)


def apply(arguments: Sequence[str], tensors: Sequence[str], holomorphic: bool) -> str:
    """The source of ``apply``, the cheapest way to run a formula that is right where it is called.

    Written out with the arguments by name, because packing them and asking each in a loop takes a
    fifth of the time of a call.
    """
    given = ", ".join(arguments)
    is_complex = _or(f"isinstance({t}, Tensor) and {t}.is_complex()" for t in tensors)
    complex_argument = [
        f"if {is_complex}:",
        f"    return forward({given})  # differentiated by autograd",
    ]
    # As autograd gives another tensor for an output that is an input.
    is_input = _or(f"output is {t}" for t in tensors)
    nested_argument = [
        f"    if getattr({''.join(tensors[:1])}, 'is_nested', False):",
        f"        return forward({given})  # differentiated by autograd",
    ]
    return _function(
        "apply",
        (*arguments, "/"),
        *(complex_argument if tensors and not holomorphic else ()),
        "if is_dynamo_compiling():",
        f"    return traced_apply({given})",
        "if transforms_active() or forward_mode():",
        f"    return dual()(*map(as_leaf, ({given},)))",
        "if is_grad_enabled():",
        "    if is_jit_tracing():",
        "        warn_not_recorded()",
        f"        return forward({given})",
        "    record = recorder()",
        "    if record is not None:",
        f"        return record(cls, ({given},))",
        *(nested_argument if tensors else ()),
        f"    return lean_apply({given})",
        f"output = forward({given})",
        *([f"return output.detach() if {is_input} else output"] if tensors else ["return output"]),
    )
