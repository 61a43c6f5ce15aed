"""A value as bytes: JSON, or compressed JSON, told apart by the first byte. No I/O."""

from __future__ import annotations

import zlib
from typing import Any, Final

from pydantic_core import PydanticSerializationError, from_json, to_json

from ..errors import SerializationFailed

# No JSON begins with it; and what ends in the dot is never mistaken for the JSON that ends in "null".
_COMPRESSED: Final = b"z"
_END: Final = b"."


def pack(key: str, value: object, threshold: int | None) -> bytes:
    """Give the bytes of a value.

    Args:
        key: What to call the value in an error.
        value: What pydantic writes as JSON: plain data, models, dataclasses, dates, Decimals, UUIDs, sets …
        threshold: Compress from so many bytes on, if that makes it smaller; ``None`` never does.

    Raises:
        SerializationFailed: It has no form in JSON.
    """
    try:
        plain = to_json(value)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise SerializationFailed(key, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if threshold is None or len(plain) < threshold:
        return plain
    packed = _COMPRESSED + zlib.compress(plain) + _END
    return packed if len(packed) < len(plain) else plain


def unpack(payload: bytes) -> Any:
    """Give the value of these bytes, as plain data: whoever reads understands both forms."""
    head = payload[:1]
    return from_json(zlib.decompress(payload[1:-1]) if head == _COMPRESSED else payload)
