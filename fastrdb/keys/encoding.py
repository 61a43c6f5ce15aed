"""How a value stands in a key, and what a key ends in when its read depends on more than its template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b

MAX_ENCODED = 128  # bytes of one value in a key; longer ones are hashed

_ESCAPED = re.compile(r"[%:*?\[\]{}\s\x00-\x1f\x7f-\x9f]|^~")
is_clean: Callable[[str], object] = re.compile(
    r"""[!"#$&'()+,\-./0-9;<=>@A-Z\\^_`a-z|][!"#$&'()+,\-./0-9;<=>@A-Z\\^_`a-z|~]{0,127}"""
).fullmatch
"""Most values need no work, and this finds them fast: short, ASCII, nothing to escape."""


def encode(text: str | None) -> str:
    """Give a value's canonical text as it stands in a key: 1 to 128 bytes of UTF-8, its own for each text.

    ``None`` is ``%N``, the empty string ``%E``. What would read as structure is percent-encoded (``%``, ``:``,
    ``*``, ``?``, brackets, braces, white space, control characters, a leading ``~``); what is longer than 128
    bytes then is ``%H`` and the hash of the text.
    """
    if text is None:
        return "%N"
    if is_clean(text) is not None:
        return text
    if not text:
        return "%E"
    raw = text.encode()
    if len(raw) <= MAX_ENCODED:
        encoded = _ESCAPED.sub(_percent, text)
        if len(encoded) <= MAX_ENCODED and len(encoded.encode()) <= MAX_ENCODED:
            return encoded
    return f"%H{blake2b(raw, digest_size=16).hexdigest()}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def suffix(extras: object) -> str:
    """Give what a key ends in when its read depends on more than its template: ``:~`` and 32 hex digits.

    Args:
        extras: Anything that JSON can say; the order of a dict's keys does not matter.
    """
    canonical = json.dumps(extras, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f":~{blake2b(canonical.encode(), digest_size=16).hexdigest()}"
