"""UPDATEs that give each row values of its own: by arrays where PostgreSQL takes them, by CASE elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Executable, Row, and_, bindparam, case, column, func, select, update

from ..db.servers import family
from ..writes.reach import reached_by_update
from .arrays import ROWS, item_type, takes_arrays
from .keyed import in_parts, named_by
from .model import Model
from .statements import Change, Returned, assigned_by

_CASES = 256  # rows of one statement: each of them tries the cases one after the other
_PARAMETERS = 15_000


class Targets(NamedTuple):
    """Rows that are to be changed, by columns.

    Attributes:
        at: Their places among the items.
        keys: Their primary keys.
        values: Of each attribute that is set, those of the rows.
    """

    at: Sequence[int]
    keys: Sequence[tuple[Any, ...]]
    values: Sequence[Sequence[Any]]

    def parts(self, most: int) -> Iterator[Targets]:
        """Cut into parts of at most so many rows."""
        for start in range(0, len(self.at), most):
            part = slice(start, start + most)
            yield Targets(self.at[part], self.keys[part], [each[part] for each in self.values])


class _Target(NamedTuple):
    """A row that is to be changed.

    Attributes:
        at: Its place among the items.
        key: Its primary key.
        values: Of each attribute that is set.
    """

    at: int
    key: tuple[Any, ...]
    values: tuple[Any, ...]


class Shape(NamedTuple):
    """What the statements have in common that set the same attributes.

    Attributes:
        model: The model.
        names: The attributes that are set.
        conditions: What rows must satisfy besides their keys.
        params: The parameters of those.
        change: What each row's change is.
    """

    model: Model
    names: tuple[str, ...]
    conditions: Sequence[ColumnElement[bool]]
    params: Mapping[str, Any]
    change: Change

    @property
    def keys(self) -> tuple[sa.Column[Any], ...]:
        """The columns of the primary key."""
        return tuple(self.model.table.primary_key.columns)

    @property
    def columns(self) -> list[sa.Column[Any]]:
        """The columns that are set."""
        return [self.model.columns[name] for name in self.names]

    def send(self, connection: Connection, targets: Targets) -> Iterator[dict[int, Row[Any]]]:
        """Change rows, statement by statement, and give what is returned of each, by index.

        A row that is not there any more is left out.
        """
        types = [item_type(each) for each in (*self.keys, *self.columns)]
        if takes_arrays(connection.dialect) and None not in types:
            yield from self._by_arrays(connection, targets, [type_ for type_ in types if type_ is not None])
        else:
            yield from self._by_cases(connection, targets)

    # -- arrays

    def _by_arrays(
        self, connection: Connection, targets: Targets, types: Sequence[sa.types.TypeEngine[Any]]
    ) -> Iterator[dict[int, Row[Any]]]:
        statement = self._of_arrays(types)
        for part in targets.parts(ROWS):
            values = (*zip(*part.keys, strict=True), *part.values)
            arrays = {f"fastrdb_a{at}": list(each) for at, each in enumerate(values)}
            rows = connection.execute(statement, {**self.params, **arrays}).fetchall()
            yield {part.at[row[-1] - 1]: row for row in rows}

    def _of_arrays(self, types: Sequence[sa.types.TypeEngine[Any]]) -> Executable:
        names = [f"fastrdb_a{at}" for at in range(len(types))]
        arrays = [bindparam(name, type_=sa.ARRAY(type_)) for name, type_ in zip(names, types, strict=True)]
        typed = [column(name, type_) for name, type_ in zip(names, types, strict=True)]
        rows = func.unnest(*arrays).table_valued(*typed, with_ordinality="at").render_derived("given")
        new = [rows.c[name] for name in names]
        width = len(self.keys)
        sets = {each.key: value for each, value in zip(self.columns, new[width:], strict=True)}
        found = [each == value for each, value in zip(self.keys, new[:width], strict=True)]
        changed = update(self.model.table).where(*found, *self.conditions).values({**sets, **self._counted()})
        return changed.returning(*self.change.returned.columns, rows.c["at"])

    # -- cases

    def _by_cases(self, connection: Connection, targets: Targets) -> Iterator[dict[int, Row[Any]]]:
        most = 1 if {c.name for c in self.keys} & {c.name for c in self.columns} else self._most()
        statements: dict[int, sa.Update] = {}
        rowwise = map(_Target, targets.at, targets.keys, zip(*targets.values, strict=True))
        for part in in_parts(rowwise, most):
            size = 1 << (len(part) - 1).bit_length()  # few sizes, so that SQLAlchemy keeps what it compiled
            padded = [*part, *[part[-1]] * (size - len(part))]
            parameters = {**self.params, **dict(_case_parameters(padded))}
            statement = statements.get(size)
            if statement is None:
                statement = statements[size] = self._of_cases(size)
            if family(connection.dialect) == "mysql":
                connection.execute(statement, parameters)
                rows = connection.execute(self._read(part), self.params).fetchall()
            else:
                rows = connection.execute(statement.returning(*self.change.returned.columns), parameters).fetchall()
            by_key = {self._new_key(target): target.at for target in part}
            alone = part[0].at if len(part) == 1 else None  # its new key may come back in another form
            yield {by_key[self._key_of(row)] if alone is None else alone: row for row in rows}

    def _most(self) -> int:
        width = len(self.keys)
        each = width + len(self.names) * (width + 1)
        return int(max(1, min(_CASES, 1 << ((_PARAMETERS // each).bit_length() - 1))))

    def _of_cases(self, size: int) -> sa.Update:
        keys = [
            [bindparam(f"fastrdb_k{row}_{at}", type_=c.type) for at, c in enumerate(self.keys)] for row in range(size)
        ]
        is_row = [and_(*(c == key for c, key in zip(self.keys, row, strict=True))) for row in keys]
        sets = {
            each.key: case(
                *((found, bindparam(f"fastrdb_c{row}_{at}", type_=each.type)) for row, found in enumerate(is_row)),
                else_=each,
            )
            for at, each in enumerate(self.columns)
        }
        named = self.keys[0].in_([row[0] for row in keys]) if len(self.keys) == 1 else sa.or_(*is_row)
        return update(self.model.table).where(named, *self.conditions).values({**sets, **self._counted()})

    def _read(self, part: Sequence[_Target]) -> Executable:
        """Give what reads rows after their change, not from a snapshot that may be older."""
        keys = [self._new_key(target) for target in part]
        return select(*self.change.returned.columns).where(named_by(self.keys, keys)).with_for_update()

    def _new_key(self, target: _Target) -> tuple[Any, ...]:
        names = [self.model.attribute_of[c.name] for c in self.keys]
        values = dict(zip(self.names, target.values, strict=True))
        return tuple(values.get(name, old) for name, old in zip(names, target.key, strict=True))

    def _key_of(self, row: Row[Any]) -> tuple[Any, ...]:
        image = self.change.returned.image(row)
        return tuple(image[c.name] for c in self.keys)

    def _counted(self) -> dict[str, Any]:
        if self.model.version is None:
            return {}
        counted = self.model.columns[self.model.version]
        return {counted.key: counted + 1}


def build_shape(
    model: Model,
    names: tuple[str, ...],
    conditions: Sequence[ColumnElement[bool]],
    params: Mapping[str, Any],
    shown: Iterable[ColumnElement[Any]],
    images: tuple[str, ...],
) -> Shape:
    """Build what the statements share that set these attributes, each row its own values."""
    returned, assigned = Returned(model, shown, images), assigned_by(model, names)
    keys = tuple(c.name for c in model.table.primary_key.columns)
    reached = frozenset(reached_by_update(model.table, assigned))
    change = Change(None, select(), None, returned, images, keys, assigned, reached)
    return Shape(model, names, conditions, params, change)


def _case_parameters(targets: Sequence[_Target]) -> Iterator[tuple[str, Any]]:
    for row, target in enumerate(targets):
        yield from ((f"fastrdb_k{row}_{at}", value) for at, value in enumerate(target.key))
        yield from ((f"fastrdb_c{row}_{at}", value) for at, value in enumerate(target.values))
