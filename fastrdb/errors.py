"""The errors of fastrdb, one tree.

FastRDBError
├── ConfigurationError          a crud, a cache or a model is built wrongly; raised at construction
│   ├── TemplateError           a key template cannot work
│   ├── UnsupportedModel        the model or the schema needs what fastrdb cannot do
│   ├── SettingRefused          a setting is missing or has no meaning; also ValueError
│   │   └── UrlRefused          a URL is malformed, or names an unknown or a sync driver
│   └── MissingExtra            a package of an extra is not installed; also ImportError
├── NotStarted                  a manager before startup(); also RuntimeError
│   └── DatabaseDependencyError the dependencies were used before they were configured
├── ValidationError             what was to be written is refused, by fastrdb or by the database
│   ├── InputError (ValueError) a call's arguments are wrong; nothing was sent
│   │   ├── UnknownField        no such field; names the valid ones
│   │   ├── UnknownOperator     no such filter operator; names the valid ones
│   │   ├── MissingKeyField     the template's field was not given
│   │   ├── ValueRefused        the column's type does not take the value
│   │   ├── KeyMismatch         a key field differs from the row that was written
│   │   ├── OutOfRange          limit, page or batch
│   │   ├── OrderRefused        an order names an attribute twice, or cannot be walked by cursor
│   │   ├── CursorRefused       a cursor is damaged, or belongs to another list
│   │   ├── EmptyInput          nothing to write, or an update that sets nothing
│   │   └── BatchRefused        items of a batch are wrong; names each of them
│   └── IntegrityViolation      also sqlalchemy.exc.IntegrityError; the driver's error is its cause
│       ├── UniqueViolation
│       ├── ForeignKeyViolation
│       ├── NotNullViolation
│       └── CheckViolation
├── UsageError (TypeError)      the wrong kind of object
│   ├── SessionRefused          ``db`` is no AsyncSession and no factory of one, or one that cannot be used
│   └── RedisRefused            ``redis`` was forgotten, or is no client and no Cache
├── NotFound                    also sqlalchemy.exc.NoResultFound
│   ├── KeysNotFound            some of many keys have no row; names them all
│   └── RowsNotFound            some rows of a batch do not exist; names each of them
├── MultipleFound               also sqlalchemy.exc.MultipleResultsFound
├── Conflict                    also sqlalchemy.orm.exc.StaleDataError; someone else wrote the row first
│   └── RowsConflict            some rows of a batch have other versions; names each of them
├── DatabaseUnavailable         the database cannot be reached; also the builtin ConnectionError
├── TransactionError            no such savepoint, or no transaction to do this in
├── LockError                   a lock was used wrongly; the message says how to use it
│   ├── LockTimeout             somebody else had the lock for as long as was waited; also TimeoutError
│   ├── LockNotAcquired         somebody else has the lock; or it is released, or renewed, by one who has it not
│   └── LockUnavailable         the lock's server did not answer
├── AlembicError                a migration cannot be configured, or a hook of one failed
├── TenancyError                a tenant's rows cannot be kept apart in this way
│   ├── TenantRequired          a call on a tenant's rows, and nobody says whose; also InputError
│   ├── TenantMismatch          two tenants in one call, or a row of another one; also InputError
│   ├── RLSError                row-level security
│   │   └── ContextRefused      a tenant, user … that PostgreSQL cannot be told; also InputError
│   └── SchemaManagementError   a schema per tenant
│       └── SchemaNameRefused   a name that cannot be a schema's; also InputError
└── CacheError
    ├── CacheUnavailable        Redis did not answer in time
    ├── CacheClosed             the cache, or its event loop, was closed
    ├── CacheShared             ``memory://`` was opened by a second process
    ├── ServerRefused           the server is too old, or its settings break the protocol
    └── SerializationFailed     a value cannot be written as JSON; nothing was stored

Further names for the same classes: ``DatabaseError`` (FastRDBError), ``DatabaseConnectionError`` (DatabaseUnavailable),
``ConstraintError`` (IntegrityViolation), ``UniqueConstraintError``, ``ForeignKeyError``, ``LockTimeoutError``,
``LockNotAcquiredError``, ``CacheConnectionError`` (CacheUnavailable), ``CacheSerializationError``, ``MigrationError``
(AlembicError), ``SchemaError`` (SchemaManagementError).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sqlalchemy import exc as sa
from sqlalchemy.orm.exc import StaleDataError

_SHOWN = 20  # of many keys in a message


class FastRDBError(Exception):
    """Whatever fastrdb raises on its own account."""


class ConfigurationError(FastRDBError):
    """A crud, a cache or a model was put together in a way that cannot work."""


class TemplateError(ConfigurationError):
    """A key template cannot work; the message says what to change.

    Attributes:
        template: The text of the template.
    """

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(template, problem)
        self.template, self.problem = template, problem

    def __str__(self) -> str:
        return f"template {self.template!r}: {self.problem}"


class UnsupportedModel(ConfigurationError):
    """The model, or the response schema, needs something that fastrdb does not do.

    Attributes:
        subject: Name of the model or schema.
    """

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(subject, problem)
        self.subject, self.problem = subject, problem

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"


class SettingRefused(ConfigurationError, ValueError):
    """A setting is missing, or its value means nothing.

    Attributes:
        setting: Name of the argument, or of the environment variable.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting, self.problem = setting, problem

    def __str__(self) -> str:
        return f"{self.setting}: {self.problem}"


class UrlRefused(SettingRefused):
    """A URL cannot be used; the message says what to write, and never repeats a password."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional package is not installed.

    Attributes:
        package: What Python could not import.
        extra: The extra of fastrdb that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"{self.package} is not installed: pip install 'fastrdb[{self.extra}]'"


class NotStarted(FastRDBError, RuntimeError):
    """Something was used before it was started, or after it was shut down."""


class DatabaseDependencyError(NotStarted):
    """The dependencies of request handlers were asked for before ``configure_database_dependencies``."""


class ValidationError(FastRDBError):
    """What was to be written is not valid: fastrdb refused the arguments, or the database the row."""


class InputError(ValidationError, ValueError):
    """The arguments of a call are wrong. Nothing was sent to the database or to Redis."""


class UnknownField(InputError):
    """The model has no such field.

    Attributes:
        field: The name that was given.
        valid: The names that would have been taken.
    """

    def __init__(self, field: str, owner: str, valid: Iterable[str]) -> None:
        self.field, self.owner, self.valid = field, owner, tuple(sorted(valid))
        super().__init__(field, owner, self.valid)

    def __str__(self) -> str:
        near = get_close_matches(self.field, self.valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{self.owner} has no field {self.field!r}; {hint}valid: {', '.join(self.valid)}"


class UnknownOperator(InputError):
    """A filter names an operator that does not exist.

    Attributes:
        field: The field that was filtered.
        operator: The name that was given.
        valid: The names that would have been taken.
    """

    def __init__(self, field: str, operator: str, valid: Iterable[str]) -> None:
        self.field, self.operator, self.valid = field, operator, tuple(sorted(valid))
        super().__init__(field, operator, self.valid)

    def __str__(self) -> str:
        return f"filter on {self.field!r}: no operator {self.operator!r}; valid: {', '.join(self.valid)}"


class MissingKeyField(InputError):
    """A read did not give every field of the key template.

    Attributes:
        field: The missing field.
        template: The template that needs it.
    """

    def __init__(self, field: str, template: str) -> None:
        super().__init__(field, template)
        self.field, self.template = field, template

    def __str__(self) -> str:
        return f"template {self.template!r} needs {self.field!r}: pass {self.field}=… as one plain value"


class ValueRefused(InputError):
    """A value does not fit the type of its column.

    Attributes:
        field: The field.
        expected: What it takes, in words.
    """

    def __init__(self, field: str, expected: str, given: object) -> None:
        super().__init__(field, expected, given)
        self.field, self.expected, self.given = field, expected, given

    def __str__(self) -> str:
        try:
            shown = repr(self.given)
        except ValueError:  # Python writes no int of more than 4300 digits
            shown = "a number of very many digits"
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        return f"{self.field!r} takes {self.expected}, not {shown} ({type(self.given).__name__})"


class KeyMismatch(InputError):
    """A key field given to ``create`` differs from the row that was to be written; nothing was written.

    Attributes:
        field: The field.
        given: The value of the keyword argument.
        written: The value in the row.
    """

    def __init__(self, field: str, given: object, written: object) -> None:
        super().__init__(field, given, written)
        self.field, self.given, self.written = field, given, written

    def __str__(self) -> str:
        return (
            f"key field {self.field}={self.given!r}, but the row has {self.written!r}: "
            f"pass the row's own value, or leave {self.field} out"
        )


class OutOfRange(InputError):
    """``limit``, ``page`` or ``batch`` is below 1 or above its maximum.

    Attributes:
        field: ``"limit"``, ``"page"`` or ``"batch"``.
        given: The value.
        maximum: The largest value that is taken; the smallest is 1.
    """

    def __init__(self, field: str, given: object, maximum: int, fix: str = "") -> None:
        super().__init__(field, given, maximum, fix)
        self.field, self.given, self.maximum, self.fix = field, given, maximum, fix

    def __str__(self) -> str:
        said = f"{self.field} must be a whole number from 1 to {self.maximum}, not {self.given!r}"
        return f"{said}: {self.fix}" if self.fix else said


class OrderRefused(InputError):
    """A list cannot be ordered in this way.

    Attributes:
        field: The attribute.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field, self.problem = field, problem

    def __str__(self) -> str:
        return f"order_by {self.field!r}: {self.problem}"


class CursorRefused(InputError):
    """A cursor is damaged, or was given by another list; the message says which."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"cursor: {self.problem}; begin again without a cursor"


class EmptyInput(InputError):
    """There is nothing to write.

    Attributes:
        argument: The argument that was empty.
    """

    def __init__(self, argument: str, fix: str) -> None:
        super().__init__(argument, fix)
        self.argument, self.fix = argument, fix

    def __str__(self) -> str:
        return f"{self.argument} is empty: {self.fix}"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """Why an item of a batch is refused.

    Attributes:
        index: Its place in the batch, from 0.
        field: The field that is wrong; ``None``: the item itself is.
        reason: What is wrong, in words.
    """

    index: int
    field: str | None
    reason: str


class BatchRefused(InputError):
    """Items of a batch are wrong. Nothing was sent, also of those that are right.

    Attributes:
        argument: The argument that has the items.
        rows: What is wrong, by index: every item that is wrong, and every field of it.
    """

    def __init__(self, argument: str, rows: Iterable[RefusedRow]) -> None:
        self.argument, self.rows = argument, tuple(rows)
        super().__init__(argument, self.rows)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the items that are wrong."""
        return tuple(dict.fromkeys(row.index for row in self.rows))

    def __str__(self) -> str:
        count = len(self.indexes)
        said = f"{self.argument}: {count} item{'s are' if count > 1 else ' is'} refused, and nothing was written"
        return f"{said}; {_listed(f'[{row.index}] {row.reason}' for row in self.rows)}"


class UsageError(FastRDBError, TypeError):
    """An argument is the wrong kind of object. Nothing was sent."""


class SessionRefused(UsageError):
    """``db`` cannot be used here; the message says what to pass instead."""


class RedisRefused(UsageError):
    """``redis`` was forgotten, or is neither a client, a Cache nor an explicit ``None``."""


class NotFound(FastRDBError, sa.NoResultFound):
    """No row matches.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
    """

    def __init__(self, model: str, criterion: dict[str, Any]) -> None:
        super().__init__(model, criterion)
        self.model, self.criterion = model, criterion

    def __str__(self) -> str:
        return f"no {self.model} with {_words(self.criterion)}"


class KeysNotFound(NotFound):
    """Some of the rows that were asked for by their keys are not there.

    Attributes:
        model: Name of the model.
        keys: The keys without a row, as given, each once, in their order.
    """

    def __init__(self, model: str, keys: list[Any]) -> None:
        super().__init__(model, {"keys": keys})
        self.args, self.keys = (model, keys), keys

    def __str__(self) -> str:
        shown = ", ".join(map(repr, self.keys[:_SHOWN]))
        rest = f" and {len(self.keys) - _SHOWN} more" if len(self.keys) > _SHOWN else ""
        return f"no {self.model} with {shown}{rest}; missing='skip' leaves them out, missing='none' gives None"


class RowsNotFound(NotFound):
    """Some rows of a batch do not exist; nothing was changed, also of those that do.

    Attributes:
        rows: Index in the batch -> the key, as given.
    """

    def __init__(self, model: str, rows: Mapping[int, object]) -> None:
        super().__init__(model, {})
        self.rows = dict(rows)
        self.args = (model, self.rows)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the keys that name no row."""
        return tuple(self.rows)

    def __str__(self) -> str:
        missing = _listed(f"[{index}] {key!r}" for index, key in self.rows.items())
        return f"no {self.model} for {missing}; nothing was changed: leave them out, or pass missing='skip'"


class MultipleFound(FastRDBError, sa.MultipleResultsFound):
    """Several rows match where one was meant; nothing was changed.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
    """

    def __init__(self, model: str, criterion: dict[str, Any]) -> None:
        super().__init__(model, criterion)
        self.model, self.criterion = model, criterion

    def __str__(self) -> str:
        return (
            f"several {self.model} rows with {_words(self.criterion)}; nothing was changed: "
            "add filters until one row is left"
        )


class Conflict(FastRDBError, StaleDataError):
    """The row has another version than the caller saw: someone else wrote it since. Nothing was changed.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
        seen: The version that the caller named.
        current: The one that the row has now; ``None`` where the caller's transaction cannot see it.
    """

    def __init__(self, model: str, criterion: dict[str, Any], seen: object, current: object) -> None:
        super().__init__(model, criterion, seen, current)
        self.model, self.criterion, self.seen, self.current = model, criterion, seen, current

    def __str__(self) -> str:
        current = f"version {self.current!r}" if self.current is not None else "another version"
        return (
            f"{self.model} with {_words(self.criterion)} has {current} by now, not {self.seen!r}; "
            "nothing was changed: read the row again, and decide anew"
        )


@dataclass(frozen=True, slots=True)
class RowConflict:
    """A row of a batch that has another version than the caller saw.

    Attributes:
        key: As given.
        seen: The version that the caller named.
        current: The one that the row has now.
    """

    key: object
    seen: object
    current: object


class RowsConflict(Conflict):
    """Some rows of a batch have other versions than the caller saw; nothing was changed, also of the others.

    Attributes:
        rows: Index in the batch -> the key and both versions.
    """

    def __init__(self, model: str, rows: Mapping[int, RowConflict]) -> None:
        first = next(iter(rows.values()))
        super().__init__(model, {}, first.seen, first.current)
        self.rows = dict(rows)
        self.args = (model, self.rows)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the items whose rows were written since."""
        return tuple(self.rows)

    def __str__(self) -> str:
        rows = self.rows.items()
        listed = _listed(f"[{at}] {row.key!r} has version {row.current!r}, not {row.seen!r}" for at, row in rows)
        return f"{self.model}: {listed}; nothing was changed: read the rows again, and decide anew"


class IntegrityViolation(ValidationError, sa.IntegrityError):
    """The database refused a write because of a constraint; nothing was written.

    Attributes:
        constraint: The constraint's name, or the columns where the driver names no constraint; may be ``None``.
        orig: The driver's error.
    """

    def __init__(self, constraint: str | None, source: sa.DBAPIError) -> None:
        super().__init__(source.statement, None, source.orig or source, hide_parameters=True)
        self.constraint, self.source = constraint, source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.constraint, self.source)

    def __str__(self) -> str:
        return f"{self._what} {self.constraint or '(the driver names none)'}; nothing was written"

    _what = "the row violates the constraint"


class UniqueViolation(IntegrityViolation):
    """Another row has this key already."""

    _what = "another row already has this value: unique constraint"


class ForeignKeyViolation(IntegrityViolation):
    """The row refers to one that does not exist, or is referred to by one that does."""

    _what = "a row that is referred to is missing, or is still referred to: foreign key"


class NotNullViolation(IntegrityViolation):
    """A column that may not be NULL got no value."""

    _what = "a value is missing: not-null column"


class CheckViolation(IntegrityViolation):
    """The row does not satisfy a CHECK constraint."""

    _what = "the row does not satisfy the check"


class DatabaseUnavailable(FastRDBError, ConnectionError):
    """The database cannot be reached, or refuses the connection; the driver's error is the cause."""


class TransactionError(FastRDBError):
    """A transaction is not in the state that the call needs; nothing was sent."""


class LockError(FastRDBError):
    """A lock could not do what was asked of it."""


class LockTimeout(LockError, TimeoutError):
    """Somebody else had the lock for as long as the caller was told to wait. Nothing is held.

    Attributes:
        name: The lock's name or key.
        waited_s: How long was waited, in seconds.
    """

    def __init__(self, name: str, waited_s: float) -> None:
        super().__init__(name, waited_s)
        self.name, self.waited_s = name, waited_s

    def __str__(self) -> str:
        return f"lock {self.name!r}: somebody else had it for all of {self.waited_s} s; wait longer, or try again later"


class LockNotAcquired(LockError):
    """Somebody else has the lock; or this object releases or renews one that it does not hold.

    Attributes:
        name: The lock's name or key.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"lock {self.name!r}: {self.problem}"


class LockUnavailable(LockError):
    """The lock's server did not answer. Whatever was asked of it may or may not have been done.

    A lock in Redis that was taken unnoticed ends by itself after its ttl; one in PostgreSQL, with its connection.

    Attributes:
        name: The lock's name or key.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"lock {self.name!r}: the server could not be asked ({self.problem}); check that it runs, and try again"


class AlembicError(FastRDBError):
    """A migration cannot be configured in this way, or a hook of one failed; its cause is kept."""


class TenancyError(FastRDBError):
    """Tenants cannot be kept apart in this way; the message says what to change."""


class TenantRequired(TenancyError, InputError):
    """Nobody says for which tenant the call works. Nothing was sent.

    Attributes:
        model: Name of the model.
        field: The attribute that says whose a row is.
    """

    def __init__(self, model: str, field: str, problem: str = "") -> None:
        super().__init__(model, field, problem)
        self.model, self.field, self.problem = model, field, problem

    def __str__(self) -> str:
        problem = self.problem or (
            f"for which tenant? pass {self.field}=…, or call it inside `with fastrdb.context.tenant(…):`; "
            "all_tenants() gives a crud for the rows of all of them"
        )
        return f"{self.model}: {problem}"


class TenantMismatch(TenancyError, InputError):
    """A call works for one tenant and names another. Nothing was sent.

    Attributes:
        field: The attribute that says whose a row is.
        given: What the call, or its schema, names.
        tenant: For whom it works.
    """

    def __init__(self, field: str, given: object, tenant: object) -> None:
        super().__init__(field, given, tenant)
        self.field, self.given, self.tenant = field, given, tenant

    def __str__(self) -> str:
        return (
            f"{self.field}={self.given!r}, but the call works for {self.tenant!r}: leave {self.field} out, or use "
            "all_tenants() where rows of several tenants, or a row that moves to another one, are meant"
        )


class RLSError(TenancyError):
    """Row-level security cannot be used in this way; nothing was changed."""


class ContextRefused(RLSError, InputError):
    """A value of a row-level security context is none that PostgreSQL can be told; nothing was sent."""


class SchemaManagementError(TenancyError):
    """A tenant's schema cannot be used, made or dropped in this way; nothing was changed."""


class SchemaNameRefused(SchemaManagementError, InputError):
    """A name cannot be that of a schema; nothing was sent.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        shown = self.name if len(self.name) <= 80 else self.name[:77] + "…"
        return f"schema {shown!r}: {self.problem}"


class CacheError(FastRDBError):
    """The cache could not do what was asked of it."""


class CacheUnavailable(CacheError):
    """Redis could not be reached, or did not answer in time. Reads are answered from SQL instead."""


class CacheClosed(CacheError):
    """The cache was closed, or belongs to an event loop that has ended: build a new one."""


class CacheShared(CacheError):
    """A second process opened the same ``memory://`` cache: use a Redis server to share one."""


class ServerRefused(CacheError):
    """The Redis server is too old for the protocol, or a setting of it would break the promise."""


class SerializationFailed(CacheError):
    """A value has no form that could be stored; nothing was.

    Attributes:
        key: What it was to be stored under.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return f"the value for {self.key!r} is not JSON ({self.problem}): pass plain data, such as model_dump() gives"


DatabaseError = FastRDBError
DatabaseConnectionError = DatabaseUnavailable  # not ConnectionError: a star import would hide the builtin one
ConstraintError = IntegrityViolation
UniqueConstraintError = UniqueViolation
ForeignKeyError = ForeignKeyViolation
LockTimeoutError = LockTimeout
LockNotAcquiredError = LockNotAcquired
CacheConnectionError = CacheUnavailable
CacheSerializationError = SerializationFailed
MigrationError = AlembicError
SchemaError = SchemaManagementError


def _words(criterion: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in criterion.items()) or "no criterion"


def _listed(said: Iterable[str], most: int = 10) -> str:
    every = list(said)
    rest = [f"and {len(every) - most} more"] if len(every) > most else []
    return "; ".join([*every[:most], *rest])
