"""Crud: the mixins, composed."""

from __future__ import annotations

from .aggregates import Aggregates
from .bulk import Bulk
from .core import C, M, R, U
from .distinct import Distinct
from .invalidation import Invalidation
from .pages import Pages
from .rows import Rows


class Crud(
    Rows[M, C, U, R],
    Bulk[M, C, U, R],
    Pages[M, C, U, R],
    Distinct[M, C, U, R],
    Aggregates[M, C, U, R],
    Invalidation[M, C, U, R],
):
    """One object per model, whose methods read through a cache that is never older than the last write.

    ``Crud[Model, CreateSchema, UpdateSchema, ResponseSchema](Model, ResponseSchema, pattern=…, list_pattern=…)``.
    """
