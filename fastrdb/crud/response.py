"""How rows become responses, responses JSON, and JSON responses again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from itertools import repeat
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError

from ..errors import UnsupportedModel
from .model import Model
from .nested import Level

R = TypeVar("R", bound=BaseModel)


class Responses(Generic[R]):
    """One response schema over one model.

    Attributes:
        columns: The name that the schema reads -> the SQL that gives it.
        shown: The columns and the related rows that the schema shows.
        by_entity: The schema needs a mapped instance: related rows, a Python property of the model, or a validator that
            runs before.
        options: The loader options for a SELECT of instances.
        load: Reads one response from stored JSON; leading white space is JSON's.
    """

    def __init__(self, model: Model, schema: type[R], whose: str | None = None) -> None:
        if not (isinstance(schema, type) and issubclass(schema, BaseModel)) or issubclass(schema, RootModel):
            raise UnsupportedModel(repr(schema), "the response schema must be a pydantic BaseModel with fields")
        self.model, self.schema = model, schema
        self.shown = Level(model, schema, whose)
        self.columns = self.shown.columns
        self.by_entity = self.shown.by_entity or bool(self.shown.related)
        self.options = self.shown.options()
        self._names = tuple(self.columns)
        self._list: TypeAdapter[list[R]] = TypeAdapter(list[schema])  # type: ignore[valid-type]  # known at run time
        self.wire = self.shown.same_names()
        by_name = partial(schema.model_validate_json, by_name=True, by_alias=False)
        # The first is model_validate_json, bare: every hit calls it.
        self.load: Callable[[bytes], R] = schema.__pydantic_validator__.validate_json if self.wire else by_name

    def build(self, row: Sequence[Any]) -> R:
        """Validate a row, given as the values of ``columns`` in their order; more values may follow."""
        return self.build_all((row,))[0]

    def build_all(self, rows: Iterable[Sequence[Any]]) -> list[R]:
        """Validate rows, each given as for ``build``."""
        values = map(dict, map(zip, repeat(self._names), rows))  # loops of C: this is most of what many rows cost
        return list(map(self.schema.__pydantic_validator__.validate_python, values))

    def build_entity(self, entity: object) -> R:
        """Validate a mapped instance."""
        if self.shown.settles:
            self.shown.settle(entity)
        return self.schema.model_validate(entity, from_attributes=True)

    def load_list(self, raw: bytes) -> list[R]:
        """Read a list of responses from stored JSON."""
        if self.wire:
            return self._list.validate_json(raw)
        return self._list.validate_json(raw, by_name=True, by_alias=False)

    def dump(self, response: R) -> bytes | None:
        """Give the JSON to store; ``None`` if reading it would not give an equal response."""
        try:
            raw = (
                self.to_json(response)
                if self.wire
                else response.model_dump_json(round_trip=True, by_alias=False).encode()
            )
            return raw if self.load(raw) == response else None
        except (ValidationError, PydanticSerializationError, ValueError):
            return None

    def dump_list(self, responses: list[R]) -> bytes | None:
        """Give the JSON of a list to store; ``None`` if reading it would not give equal responses."""
        try:
            raw = (
                self.to_json_list(responses)
                if self.wire
                else self._list.dump_json(responses, round_trip=True, by_alias=False)
            )
            return raw if self.load_list(raw) == responses else None
        except (ValidationError, PydanticSerializationError, ValueError):
            return None

    def to_json(self, response: R) -> bytes:
        """Give the JSON that goes to a client, by aliases as FastAPI sends it."""
        return response.model_dump_json(by_alias=True).encode()

    def to_json_list(self, responses: list[R]) -> bytes:
        """Give the JSON of a list that goes to a client."""
        return self._list.dump_json(responses, by_alias=True)

    def fingerprint(self, policies: str = "") -> bytes:
        """Hash what the stored JSON depends on, equal in every process that runs the same code.

        Args:
            policies: What else rows must satisfy.
        """
        try:
            described = json.dumps(self.schema.model_json_schema(mode="serialization"), sort_keys=True, default=repr)
        except PydanticInvalidForJsonSchema:
            described = repr(sorted((n, repr(f)) for n, f in self.schema.model_fields.items()))
        sql = [(name, str(expression)) for name, expression in self.columns.items()]
        criteria = [str(c.compile(compile_kwargs={"literal_binds": True})) for c in self.model.criteria]
        parts = [
            described,
            sql,
            criteria,
            self.wire,
            self.by_entity,
            self.shown.text(),
            *([policies] if policies else []),
        ]
        text = repr(parts)
        return blake2b(text.encode(), digest_size=8).digest()
