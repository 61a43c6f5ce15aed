"""Crud: the mixins, composed."""

from __future__ import annotations

from .bulk import Bulk
from .core import C, M, R, U
from .cursor_pages import CursorPages
from .invalidation import Invalidation
from .pages import Pages
from .rows import Rows
from .stream import Streams


class Crud(
    Rows[M, C, U, R],
    Bulk[M, C, U, R],
    Pages[M, C, U, R],
    CursorPages[M, C, U, R],
    Streams[M, C, U, R],
    Invalidation[M, C, U, R],
):
    """One object per model, whose methods read through a cache that is never older than the last write.

    ``Crud[Model, CreateSchema, UpdateSchema, ResponseSchema](Model, ResponseSchema, pattern=…, list_pattern=…)``.
    """
