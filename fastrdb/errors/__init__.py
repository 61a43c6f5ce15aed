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
│   │   └── ReplicaRefused      it leads to a replica, or may only read, and this writes or locks
│   └── RedisRefused            ``redis`` was forgotten, or is no client and no Cache
├── NotFound                    also sqlalchemy.exc.NoResultFound
│   └── RowsNotFound            some of many rows do not exist; names each of them
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
    │   └── CacheFull           Redis is out of memory: a value was not stored
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

from .arguments import (
    BatchRefused,
    CursorRefused,
    EmptyInput,
    InputError,
    KeyMismatch,
    MissingKeyField,
    OrderRefused,
    OutOfRange,
    RedisRefused,
    RefusedRow,
    ReplicaRefused,
    SessionRefused,
    UnknownField,
    UnknownOperator,
    UsageError,
    ValidationError,
    ValueRefused,
)
from .base import (
    FastRDBError,
)
from .cache import (
    CacheClosed,
    CacheError,
    CacheFull,
    CacheShared,
    CacheUnavailable,
    SerializationFailed,
    ServerRefused,
)
from .configuration import (
    AlembicError,
    ConfigurationError,
    DatabaseDependencyError,
    MissingExtra,
    NotStarted,
    SettingRefused,
    TemplateError,
    UnsupportedModel,
    UrlRefused,
)
from .integrity import (
    CheckViolation,
    ForeignKeyViolation,
    IntegrityViolation,
    NotNullViolation,
    UniqueViolation,
)
from .locks import (
    LockError,
    LockNotAcquired,
    LockTimeout,
    LockUnavailable,
)
from .rows import (
    Conflict,
    MultipleFound,
    NotFound,
    RowConflict,
    RowsConflict,
    RowsNotFound,
)
from .tenancy import (
    ContextRefused,
    RLSError,
    SchemaManagementError,
    SchemaNameRefused,
    TenancyError,
    TenantMismatch,
    TenantRequired,
)
from .transactions import (
    DatabaseUnavailable,
    TransactionError,
)

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

__all__ = [
    "AlembicError",
    "BatchRefused",
    "CacheClosed",
    "CacheConnectionError",
    "CacheError",
    "CacheFull",
    "CacheSerializationError",
    "CacheShared",
    "CacheUnavailable",
    "CheckViolation",
    "ConfigurationError",
    "Conflict",
    "ConstraintError",
    "ContextRefused",
    "CursorRefused",
    "DatabaseConnectionError",
    "DatabaseDependencyError",
    "DatabaseError",
    "DatabaseUnavailable",
    "EmptyInput",
    "FastRDBError",
    "ForeignKeyError",
    "ForeignKeyViolation",
    "InputError",
    "IntegrityViolation",
    "KeyMismatch",
    "LockError",
    "LockNotAcquired",
    "LockNotAcquiredError",
    "LockTimeout",
    "LockTimeoutError",
    "LockUnavailable",
    "MigrationError",
    "MissingExtra",
    "MissingKeyField",
    "MultipleFound",
    "NotFound",
    "NotNullViolation",
    "NotStarted",
    "OrderRefused",
    "OutOfRange",
    "RLSError",
    "RedisRefused",
    "RefusedRow",
    "ReplicaRefused",
    "RowConflict",
    "RowsConflict",
    "RowsNotFound",
    "SchemaError",
    "SchemaManagementError",
    "SchemaNameRefused",
    "SerializationFailed",
    "ServerRefused",
    "SessionRefused",
    "SettingRefused",
    "TemplateError",
    "TenancyError",
    "TenantMismatch",
    "TenantRequired",
    "TransactionError",
    "UniqueConstraintError",
    "UniqueViolation",
    "UnknownField",
    "UnknownOperator",
    "UnsupportedModel",
    "UrlRefused",
    "UsageError",
    "ValidationError",
    "ValueRefused",
]
