"""Finds what a command line names: "pkg.mod:name", "pkg.mod:layer.rule", "path/file.py:f,fwd,bwd"."""

import difflib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


class UsageError(Exception):
    """The command line asks for something that is not there; the message is all that a person needs."""


def locate(target: str) -> Any:
    """The object that `target` names; a tuple of them where it names several, separated by commas.

    Raises:
        UsageError: there is no such module, file or attribute (the message has the nearest names), or the
            module cannot be imported.
    """
    module_name, _, names = target.rpartition(":")
    if not all((module_name, *names.split(","))):
        raise UsageError(f"got {target!r}, expected MODULE:NAME or FILE.py:NAME, such as jcnn:conv")
    module = _file(Path(module_name)) if module_name.endswith(".py") else _module(module_name)
    first, *others = (_attribute(module, module_name, name.strip()) for name in names.split(","))
    return (first, *others) if others else first


def nearest(name: str, known: Iterable[str]) -> str:
    """Such as "; did you mean conv or con?", and "" where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):
            raise _broken(name, error) from None
        parent, _, last = missing.rpartition(".")
        path = getattr(sys.modules[parent], "__path__", ()) if parent else None
        known = [module.name for module in pkgutil.iter_modules(path)]
        raise UsageError(f"no module {missing!r}{nearest(last, known)}") from None
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from None


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        known = [p.name for p in path.parent.glob("*.py")]
        raise UsageError(f"no file {str(path)!r}{nearest(path.name, known)}")
    sys.path.insert(0, str(path.parent.resolve()))
    name = path.stem if path.stem not in sys.modules else f"_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _broken(str(path), error) from None
    return module


def _broken(name: str, error: BaseException) -> UsageError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return UsageError(f"importing {name} failed: {type(error).__name__}: {error}{where}")


def _attribute(owner: Any, owner_name: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(owner, name):
            known = [n for n in dir(owner) if not n.startswith("_")]
            raise UsageError(f"{owner_name} has no {name!r}{nearest(name, known)}")
        separator = ":" if isinstance(owner, ModuleType) else "."
        owner, owner_name = getattr(owner, name), f"{owner_name}{separator}{name}"
    return owner
