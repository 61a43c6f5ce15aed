"""Schemas whose attributes are what they say."""

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, computed_field, field_serializer
from pydantic import model_serializer as serializer

from fastrdb.crud.plain_schemas import says_its_attributes


class Plain(BaseModel):
    id: int
    name: Annotated[str, Field(max_length=20)] = "x"
    price: Decimal | None = None
    at: dt.datetime = Field(default_factory=lambda: dt.datetime.now(dt.UTC), alias="createdAt")
    ref: UUID = Field(default_factory=uuid4)


class Narrow(Plain):
    name: str = Field("y", pattern="^[a-z]*$")


class Excluded(BaseModel):
    id: int
    name: str = Field("x", exclude=True)


class Serialized(BaseModel):
    name: Annotated[str, PlainSerializer(str.upper)] = "x"


class ByMethod(BaseModel):
    name: str = "x"

    @field_serializer("name")
    def upper(self, value: str) -> str:
        return value.upper()


class Whole(BaseModel):
    name: str = "x"

    @serializer
    def all(self) -> dict[str, Any]:
        return {"name": "other"}


class Computed(BaseModel):
    name: str = "x"

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def twice(self) -> str:
        return self.name * 2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = "x"


class Nested(BaseModel):
    inner: Plain = Plain(id=1)


class Secret(BaseModel):
    word: SecretStr = SecretStr("x")


class Dumped(BaseModel):
    name: str = "x"

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"name": "other"}


class Inherits(ByMethod):
    id: int = 1


class Empty(BaseModel):
    pass


@pytest.mark.parametrize("kind", [Plain, Narrow])
def test_plain_schemas_say_their_attributes(kind: type[Plain]) -> None:
    """What is called plain dumps its attributes, by their names."""
    assert says_its_attributes(kind)
    found = kind(id=1, name="john", price=Decimal("1.50"))
    assert found.model_dump(by_alias=False) == {name: getattr(found, name) for name in kind.model_fields}


@pytest.mark.parametrize(
    "kind",
    [Excluded, Serialized, ByMethod, Whole, Computed, Open, Nested, Secret, Dumped, Inherits, Empty],
)
def test_what_dumps_in_its_own_way_is_dumped(kind: type[BaseModel]) -> None:
    """Serializers, computed, excluded and further fields, other types and a method of one's own are not passed over."""
    assert not says_its_attributes(kind)
