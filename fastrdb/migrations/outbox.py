"""Operations for the outbox of a cache: ``op.create_outbox`` and ``op.drop_outbox``.

Autogenerate needs neither: where the table is in the metadata, it is a table like any other.
"""

from __future__ import annotations

from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import CreateTableOp, DropTableOp
from sqlalchemy import MetaData, Table

from ..writes.outbox import TABLE_NAME, outbox_table


class _OutboxOp(MigrateOperation):
    """An operation on the table of an outbox."""

    def __init__(self, name: str, schema: str | None) -> None:
        self.name, self.schema = name, schema

    def table(self) -> Table:
        """The table."""
        return outbox_table(MetaData(), self.name, schema=self.schema)


@Operations.register_operation("create_outbox")
class CreateOutboxOp(_OutboxOp):
    """Create the table of an outbox."""

    @classmethod
    def create_outbox(cls, operations: Operations, name: str = TABLE_NAME, *, schema: str | None = None) -> None:
        """Create the table that ``fastrdb.outbox_table`` describes.

        Args:
            name: The table's.
            schema: Its schema.
        """
        operations.invoke(cls(name, schema))

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return DropOutboxOp(self.name, self.schema)


@Operations.register_operation("drop_outbox")
class DropOutboxOp(_OutboxOp):
    """Drop the table of an outbox."""

    @classmethod
    def drop_outbox(cls, operations: Operations, name: str = TABLE_NAME, *, schema: str | None = None) -> None:
        """Drop the table; what lies in it is not delivered, so let it run empty first.

        Args:
            name: The table's.
            schema: Its schema.
        """
        operations.invoke(cls(name, schema))

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return CreateOutboxOp(self.name, self.schema)


@Operations.implementation_for(CreateOutboxOp)
def _create(operations: Operations, operation: CreateOutboxOp) -> None:
    operations.invoke(CreateTableOp.from_table(operation.table()))


@Operations.implementation_for(DropOutboxOp)
def _drop(operations: Operations, operation: DropOutboxOp) -> None:
    operations.invoke(DropTableOp.from_table(operation.table()))
