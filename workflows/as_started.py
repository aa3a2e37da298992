"""Keeps a worker's workflow code as it was when the worker started.

The SDK's sandbox imports this package anew for each run, from its files. Somebody pulled a new release under a running desk: new
workflow code met the old `domain` in memory, every workflow task failed, and a kill waited until the worker was restarted. Where
such a mixture does run, no release may be able to replay what it did.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType

import workflows


class _AsStarted(MetaPathFinder, InspectLoader):
    """Finds the modules of `workflows` in memory."""

    def __init__(self) -> None:
        names = [
            workflows.__name__,
            *(f"{workflows.__name__}.{each.name}" for each in pkgutil.iter_modules(workflows.__path__)),
        ]
        self._code = {name: _code_of(importlib.import_module(name)) for name in names}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name in self._code else None

    def get_code(self, name: str) -> CodeType:
        return self._code[name]

    def get_source(self, name: str) -> None:
        """The file may be another one by now."""

    def is_package(self, name: str) -> bool:
        return name == workflows.__name__


def _code_of(module: ModuleType) -> CodeType:
    loader = module.__spec__.loader if module.__spec__ else None
    code = loader.get_code(module.__name__) if isinstance(loader, InspectLoader) else None
    assert code, f"{module.__name__} has no code"
    return code


def keep_workflow_code() -> None:
    """From now on, each run gets the code that this process has loaded."""
    sys.meta_path.insert(0, _AsStarted())
