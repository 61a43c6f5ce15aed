"""Crud: the mixins, composed."""

from __future__ import annotations

from .aggregates import Aggregates
from .bulk import Bulk
from .children import Children
from .conditional import Conditional
from .core import C, M, R, U
from .cursor_pages import CursorPages
from .deletions import Deletions
from .distinct import Distinct
from .hooks import AfterCommit
from .invalidation import Invalidation
from .pages import Pages
from .patching import Patching
from .soft_delete import SoftDelete
from .stream import Streams
from .tenant import AllTenants
from .updates import Updates
from .upserts import Upserts
from .warming import Warming


class Crud(
    Warming[M, C, U, R],
    Bulk[M, C, U, R],
    Updates[M, C, U, R],
    Deletions[M, C, U, R],
    Upserts[M, C, U, R],
    Patching[M, C, U, R],
    Conditional[M, C, U, R],
    Children[M, C, U, R],
    SoftDelete[M, C, U, R],
    Pages[M, C, U, R],
    CursorPages[M, C, U, R],
    Streams[M, C, U, R],
    Distinct[M, C, U, R],
    Aggregates[M, C, U, R],
    Invalidation[M, C, U, R],
    AfterCommit[M, C, U, R],
    AllTenants[M, C, U, R],
):
    """One object per model, whose methods read through a cache that is never older than the last write.

    ``Crud[Model, CreateSchema, UpdateSchema, ResponseSchema](Model, ResponseSchema, pattern=…, list_pattern=…)``.
    """
