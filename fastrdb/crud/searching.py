"""The columns that a crud searches."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigurationError, InputError
from .model import Model


def checked_search(model: Model, names: Sequence[str]) -> tuple[str, ...]:
    """Give the columns that a crud searches, once each.

    Args:
        model: The crud's.
        names: Attributes of it, or dotted ones of related models.

    Raises:
        ConfigurationError: One does not exist, or is no text.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"search: pass the names of columns, such as ({names!r},), not one text")
    for name in names:
        try:
            values = model.fields[name][1]
        except InputError as error:
            raise ConfigurationError(f"search: {error}") from error
        if values.category != "text":
            raise ConfigurationError(f"search: {name!r} takes {values.expected}; name columns of text")
    return tuple(dict.fromkeys(names))
