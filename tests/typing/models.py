"""What checkers say of the model bases. Nothing here runs: mypy and pyright read it (``nox -s types``)."""

from datetime import datetime
from typing import Any, assert_type
from uuid import UUID

from sqlalchemy import ColumnElement, String, select
from sqlalchemy.orm import Mapped, mapped_column

from fastrdb.context import Actor, actor, current_actor, current_tenant, tenant
from fastrdb.db import Base, BaseModel, FullAuditMixin, SortableKeyMixin, VersionedMixin


class Custom(Base):
    """A base with a column."""

    organization_id: Mapped[str | None] = mapped_column(String(50))

    @classmethod
    def get_table_prefix(cls) -> str:
        """What the tables begin with."""
        return "ours_"


class Depot(Custom):
    """A model with an explicit name."""

    __tablename__ = "depots"
    name: Mapped[str]


class Order(BaseModel, FullAuditMixin, VersionedMixin, SortableKeyMixin):
    """A model with an automatic one."""

    number: Mapped[str]


def columns(order: Order) -> None:
    """Columns and properties have their types."""
    assert_type(order.id, UUID)
    assert_type(order.created_at, datetime)
    assert_type(order.deleted_at, datetime | None)
    assert_type(order.created_by, str | None)
    assert_type(order.tenant_id, str)
    assert_type(order.version, int)
    assert_type(order.is_deleted, bool)
    assert_type(Order.active_only(), ColumnElement[bool])
    select(Order).where(Order.active_only(), Order.by_tenant("acme"), ~Order.by_user("ann"))


def dicts(order: Order, depot: Depot) -> None:
    """Dicts make instances of the class that they are asked of."""
    assert_type(Order.from_dict({}), Order)
    assert_type(depot.to_dict(), dict[str, Any])
    assert_type(order.dict(exclude={"id"}), dict[str, Any])
    order.update_from_dict({"number": "a"})


async def context() -> None:
    """Blocks give what holds in them."""
    with actor("ann", request_id="r") as who, tenant(1) as whose:
        assert_type(who, Actor)
        assert_type(whose, str)
    async with actor("ann") as who:
        assert_type(who, Actor)
    assert_type(current_actor(), Actor | None)
    assert_type(current_tenant(), str | None)
