"""Who wrote a row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnDefault, ColumnElement, String, Table, bindparam, case
from sqlalchemy.orm import Mapped, mapped_column

from ...context import Identifier, current_actor
from .mapping import Mapping, columns_of

_LENGTH = 255


def _user_id() -> str | None:
    who = current_actor()
    return who.user_id if who is not None else None


def _request_id() -> str | None:
    who = current_actor()
    return who.request_id if who is not None else None


class AuditMixin(Mapping):
    """Who made a row, who changed it last, and in which request.

    INSERT and UPDATE, by ORM, Crud or hand-written ``insert()`` and ``update()``, fill the columns from the block
    ``fastrdb.context.actor`` that they run in. Outside of any, an INSERT leaves them NULL and an UPDATE leaves them as
    they are. Values that a statement names itself win.

    Attributes:
        created_by: Id of the user who made the row.
        updated_by: Id of the user who wrote it last; at first, who made it.
        request_id: The request of the last write.
    """

    created_by: Mapped[str | None] = mapped_column(String(_LENGTH), default=_user_id, index=True)
    updated_by: Mapped[str | None] = mapped_column(String(_LENGTH), default=_user_id, index=True)
    request_id: Mapped[str | None] = mapped_column(String(_LENGTH), default=_request_id)

    def set_audit_fields(
        self, user_id: Identifier | None = None, request_id: Identifier | None = None, is_update: bool = False
    ) -> None:
        """Set by hand what the context would: ``None`` leaves a column as it is.

        Args:
            user_id: Who writes.
            request_id: In which request.
            is_update: Leave ``created_by`` as it is.
        """
        if user_id is not None:
            self.updated_by = str(user_id)
            if not is_update:
                self.created_by = str(user_id)
        if request_id is not None:
            self.request_id = str(request_id)

    @classmethod
    def by_user(cls, user_id: Identifier) -> ColumnElement[bool]:
        """Give the condition that this user made a row."""
        return cls.created_by == str(user_id)

    @classmethod
    def updated_by_user(cls, user_id: Identifier) -> ColumnElement[bool]:
        """Give the condition that this user wrote a row last."""
        return cls.updated_by == str(user_id)

    @classmethod
    def by_request(cls, request_id: Identifier) -> ColumnElement[bool]:
        """Give the condition that a row was last written in this request."""
        return cls.request_id == str(request_id)

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        super()._complete_table(table)
        columns = columns_of(table, "updated_by", "request_id")
        for column, value in zip(columns or (), (_user_id, _request_id), strict=False):
            # Evaluated by the database, because a Python function could not say "leave it as it is".
            acts = bindparam(None, callable_=lambda: current_actor() is not None, type_=Boolean(), unique=True)
            given = bindparam(None, callable_=value, type_=column.type, unique=True)
            onupdate: Any = ColumnDefault(case((acts, given), else_=column), for_update=True)
            onupdate._set_parent_with_dispatch(column)
