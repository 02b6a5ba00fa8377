"""The canonical form of what an arm holds: equal arms give equal text, in every process.

A value is recorded by the names under which anybody can import it, and by all its options, the
defaults of our own and of the user's classes included: editing a default then changes the
identity of the trials that it reaches, instead of passing old results off as new ones.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from overconv.training.environment import imported_names, source_digest, syntax_digest
from records.record import digest

ALLOWED = (
    "classes, functools.partial of them, functions at the top of a module, frozen dataclasses, "
    "numbers, strings, tuples, mappings"
)
_CONV_ARGUMENTS = frozenset(inspect.signature(nn.Conv2d).parameters)
_OURS = frozenset({"overconv", "ablations", "records", "analysis", "benchmark", "reports"})
_IN_THE_STRATUM = frozenset({"torch", "overconv"})  # their version or source is recorded there


def describe(value: Any) -> Any:
    """JSON form of ``value``: a class by its public name, an instance by its fields.

    Raises:
        ValueError: ``value`` could not be found again by another process (a lambda, a closure),
            or has no canonical form (an instance of a class that is no frozen dataclass).
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            raise ValueError(f"{value} has no canonical form; allowed: finite numbers")
        case tuple() | list():
            return [describe(item) for item in value]
        case Mapping():
            return {_key(key): describe(item) for key, item in value.items()}
        case partial() | type():
            return describe_call(value)
        case FunctionType():
            return {"function": public_name(value), **_origin(value)}
    if is_dataclass(value) and value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        held = {field.name: describe(getattr(value, field.name)) for field in fields(value)}
        return {"class": public_name(type(value)), "fields": held, **_origin(type(value))}
    raise ValueError(f"{value!r} cannot be recorded; allowed: {ALLOWED}")


def describe_call(factory: Callable[..., Any], *, skip: frozenset[str] = frozenset()) -> dict:
    """A class or ``partial`` of one: public name and every option, defaults included.

    ``skip`` names arguments that something else supplies; their defaults are left out.

    Raises:
        ValueError: ``factory`` is neither, or is given arguments that it does not take.
    """
    target, positional, options = unwrap(factory)
    name = public_name(target)
    try:
        bound = inspect.signature(target).bind_partial(*positional, **options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    if not _is_installed(target):
        defaults = {
            parameter.name: parameter.default
            for parameter in inspect.signature(target).parameters.values()
            if parameter.default is not parameter.empty and parameter.name not in skip
        }
    else:  # what an installed package would do by default, its version says
        defaults = {}
    given = {**defaults, **bound.arguments}
    described = {key: describe(item) for key, item in given.items()}
    return {"class": name, "options": described, **_origin(target)}


def describe_layer(layer: Callable[..., nn.Module]) -> dict:
    """As :func:`describe_call`, without ``nn.Conv2d``'s arguments: the network supplies those."""
    return describe_call(layer, skip=_CONV_ARGUMENTS)


def unwrap(factory: Callable[..., Any]) -> tuple[Callable[..., Any], tuple, dict[str, Any]]:
    """Class, positional arguments and options of a class or of a ``partial`` of one."""
    if isinstance(factory, partial):
        target, positional, options = unwrap(factory.func)
        return target, (*positional, *factory.args), {**options, **factory.keywords}
    if not isinstance(factory, type | FunctionType):
        raise ValueError(f"{factory!r} cannot be recorded; allowed: {ALLOWED}")
    return factory, (), {}


def public_name(target: Any) -> str:
    """The shortest dotted name that imports ``target``, so that moving a file keeps it.

    Raises:
        ValueError: No name imports it: a lambda, or defined inside a function.
    """
    module, qualified = target.__module__, target.__qualname__
    if "<lambda>" in qualified or "<locals>" in qualified:
        kind = "a lambda" if "<lambda>" in qualified else f"{qualified!r}, defined in a function,"
        raise ValueError(f"{kind} cannot be found by another process; allowed: {ALLOWED}")
    packages = module.split(".")
    for end in range(1, len(packages) + 1):
        name = ".".join(packages[:end])
        found: Any = sys.modules.get(name) or importlib.import_module(name)
        for part in qualified.split("."):
            found = getattr(found, part, None)
        if found is target:
            return f"{name}.{qualified}"
    raise ValueError(f"{module}.{qualified} does not import what it names; allowed: {ALLOWED}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise ValueError(f"{key!r} is no key of a mapping that can be recorded; allowed: strings")


def _origin(target: Any) -> dict[str, str]:
    """What the name does not say: the source of a user's class, the version of a package's."""
    package = target.__module__.partition(".")[0]
    if package in _IN_THE_STRATUM or package in sys.stdlib_module_names:
        return {}
    if not _is_installed(target):
        return {"source": _source(Path(inspect.getfile(target)))}
    owners = _distributions().get(package, [])
    return {"version": ", ".join(f"{o} {importlib.metadata.version(o)}" for o in sorted(owners))}


def _source(path: Path) -> str:
    """Digest of a user's file and of all files of the user's that it imports."""
    names = [name for name in imported_names(path) if _is_users(name)]
    closure = source_digest(names, {name.partition(".")[0] for name in names})
    others = {name: value for name, value in closure.items() if name != path.stem}
    return digest([syntax_digest(path), others]) if others else syntax_digest(path)


def _is_users(module: str) -> bool:
    """Whether ``module`` is a file that neither we nor an installed package brought."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in _OURS:
        return False
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return False
    if found is None or found.origin is None or not found.has_location:
        return False
    return not any(Path(found.origin).resolve().is_relative_to(place) for place in _places())


def _is_installed(target: Any) -> bool:
    """Whether ``target`` belongs to an installed package that is not ours."""
    package = target.__module__.partition(".")[0]
    if package == "overconv":
        return False
    if package in sys.stdlib_module_names:
        return True
    try:
        file = Path(inspect.getfile(target)).resolve()
    except TypeError:  # built in: no file
        return True
    return any(file.is_relative_to(place) for place in _places())


def _places() -> set[Path]:
    """Where packages are installed: here, by the system, for the user, or in another environment.

    The same package, wherever it lies, gives the same identities.
    """
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("purelib", "platlib", "stdlib")]
    found += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return {Path(path).resolve() for path in found}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
