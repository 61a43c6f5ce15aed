"""What is done after a migration: functions of modules that users name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic.config import Config

from ..errors import AlembicError

HOOK = "after_migration"


def run_post_migration_hooks(
    config: Config,
    revision: str,
    hook_modules: Iterable[str] = (),
    hook_directory: str | Path | None = None,
) -> list[str]:
    """Call ``after_migration(config, revision)`` of each module, in order, and give the modules' names.

    Args:
        config: Alembic's.
        revision: The one that was migrated to.
        hook_modules: Names of modules to import.
        hook_directory: A folder whose ``*.py`` files follow, in the order of their names; ``_*.py`` are left out.

    Raises:
        AlembicError: A module cannot be imported or has no such function, or the function failed: its cause. Those
            before it have run, those after it have not.
    """
    done = []
    for name, load in _hooks(hook_modules, hook_directory):
        try:
            hook = getattr(load(), HOOK)
            hook(config, revision)
        except Exception as error:
            raise AlembicError(f"post-migration hook {name}: {type(error).__name__}: {error}") from error
        done.append(name)
    return done


def _hooks(modules: Iterable[str], directory: str | Path | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name in modules:
        yield name, partial(import_module, name)
    if directory is None:
        return
    folder = Path(directory)
    if not folder.is_dir():
        raise AlembicError(f"hook_directory {str(folder)!r} is no folder")
    for path in sorted(folder.glob("[!_]*.py")):
        yield path.stem, partial(_loaded, path)


def _loaded(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"fastrdb_hook_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
