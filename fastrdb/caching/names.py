"""The keys of a SmartCache: where a value lies, which directories it lies in, and what a pattern names. No I/O."""

from __future__ import annotations

import re
from typing import TypeAlias
from uuid import UUID

from ..errors import ConfigurationError, EmptyInput, ValueRefused
from ..keys import encode

Id: TypeAlias = str | int | UUID

_WILD = re.compile(r"[*?\[]")
_TOKEN = b"fastrdb:t:"
_REMEMBERED = 1_000


class Names:
    """The keys of one namespace.

    A kind's directory is its text up to the first ``:``, so that whatever matches ``"a:…*"`` lies in the directory
    ``a``, wherever a kind or an id has a colon of its own.

    Args:
        prefix: Leads every key.
        namespace: Any text but the empty one.
    """

    def __init__(self, prefix: str, namespace: str) -> None:
        self._root = f"{prefix}fastrdb:s:{encode(namespace)}:"
        self.namespace = _TOKEN + self._root.encode()
        self._tokens: dict[str, tuple[bytes, bytes]] = {}

    def entry(self, kind: str, id: Id) -> bytes:
        """Give the key of a value. An int and its text are one id.

        Raises:
            ValueRefused: The kind is no text, or the id none of the types that an id may have.
            EmptyInput: The kind is empty.
        """
        if isinstance(id, bool) or not isinstance(id, (str, int, UUID)):
            raise ValueRefused("id", "text, an int or a UUID", id)
        return f"{self._root}{encode(_checked(kind))}:{encode(str(id))}".encode()

    def tokens(self, kind: str) -> tuple[bytes, bytes]:
        """Give the keys of the tokens that a kind's values carry: the namespace's and the directory's."""
        found = self._tokens.get(kind)
        if found is None:
            if len(self._tokens) >= _REMEMBERED:
                self._tokens.clear()
            found = self._tokens[kind] = self.namespace, self._directory(_checked(kind))
        return found

    def named_by(self, pattern: str) -> tuple[bytes, ...]:
        """Give the token of the smallest directory that covers a pattern with wildcards; or the entries it may mean.

        Raises:
            ValueRefused: It is neither ``kind:id`` nor has a wildcard (``*``, ``?``, ``[``).
        """
        wild = _WILD.search(pattern) if isinstance(pattern, str) else None
        if wild is not None:
            head = pattern[: wild.start()]
            return (self._directory(head) if ":" in head else self.namespace,)
        if not isinstance(pattern, str) or ":" not in pattern[1:]:
            raise ValueRefused("pattern", "'kind:*', 'kind:id' or '*'", pattern)
        colons = [at for at, letter in enumerate(pattern) if letter == ":" and at > 0]
        return tuple(self.entry(pattern[:at], pattern[at + 1 :]) for at in colons)

    def _directory(self, text: str) -> bytes:
        return _TOKEN + f"{self._root}{encode(text.partition(':')[0])}:".encode()


def _checked(kind: object) -> str:
    if not isinstance(kind, str):
        raise ValueRefused("kind", "text", kind)
    if not kind:
        raise EmptyInput("kind", "say what kind of value it is, such as 'user'")
    return kind


def check_namespace(namespace: object) -> str:
    """Give a namespace, if it is one.

    Raises:
        ValueRefused: It is no text.
        EmptyInput: It is empty.
    """
    if not isinstance(namespace, str):
        raise ValueRefused("namespace", "text", namespace)
    if not namespace:
        raise EmptyInput("namespace", "say whose values these are, such as 'users'")
    return namespace


def check_prefix(prefix: str) -> str:
    """Give a key prefix, if it is one.

    Raises:
        ConfigurationError: A letter of it would make keys collide, or patterns match what they should not.
    """
    if any(letter in "%*?[]{}" or letter.isspace() for letter in prefix):
        raise ConfigurationError(f"key_prefix {prefix!r}: leave out white space and any of % * ? [ ] {{ }}")
    return prefix
