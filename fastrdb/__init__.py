"""fastrdb: one typed object per SQLAlchemy model, reading through a cache that is never older than the last write."""

from .cache.cache import Cache
from .cache.stats import Stats
from .crud.arguments import UNSET
from .crud.crud import Crud
from .crud.invalidation import Explanation
from .crud.pages import PaginatedResponse
from .errors import (
    CacheClosed,
    CacheError,
    CacheShared,
    CacheUnavailable,
    CheckViolation,
    ConfigurationError,
    Conflict,
    EmptyInput,
    FastRDBError,
    ForeignKeyViolation,
    InputError,
    IntegrityViolation,
    KeyMismatch,
    MissingKeyField,
    MultipleFound,
    NotFound,
    NotNullViolation,
    OutOfRange,
    RedisRefused,
    ServerRefused,
    SessionRefused,
    TemplateError,
    UniqueViolation,
    UnknownField,
    UnknownOperator,
    UnsupportedModel,
    UsageError,
    ValueRefused,
)

FastRDB = Crud  # the same class, for code that already says so

__all__ = [
    "UNSET",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheShared",
    "CacheUnavailable",
    "CheckViolation",
    "ConfigurationError",
    "Conflict",
    "Crud",
    "EmptyInput",
    "Explanation",
    "FastRDB",
    "FastRDBError",
    "ForeignKeyViolation",
    "InputError",
    "IntegrityViolation",
    "KeyMismatch",
    "MissingKeyField",
    "MultipleFound",
    "NotFound",
    "NotNullViolation",
    "OutOfRange",
    "PaginatedResponse",
    "RedisRefused",
    "ServerRefused",
    "SessionRefused",
    "Stats",
    "TemplateError",
    "UniqueViolation",
    "UnknownField",
    "UnknownOperator",
    "UnsupportedModel",
    "UsageError",
    "ValueRefused",
]
