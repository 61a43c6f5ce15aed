"""Crud: the mixins, composed."""

from __future__ import annotations

from .bulk import Bulk
from .core import C, M, R, U
from .deletions import Deletions
from .invalidation import Invalidation
from .pages import Pages
from .rows import Rows
from .updates import Updates


class Crud(
    Rows[M, C, U, R],
    Bulk[M, C, U, R],
    Updates[M, C, U, R],
    Deletions[M, C, U, R],
    Pages[M, C, U, R],
    Invalidation[M, C, U, R],
):
    """One object per model, whose methods read through a cache that is never older than the last write.

    ``Crud[Model, CreateSchema, UpdateSchema, ResponseSchema](Model, ResponseSchema, pattern=…, list_pattern=…)``.
    """
