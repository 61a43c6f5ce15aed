"""Invalidation patterns: directories, written with a star."""

from __future__ import annotations

from fastrdb.errors import TemplateError
from fastrdb.keys.template import RESERVED, Template, can_equal


class Pattern:
    """The directory that an invalidation pattern names: ``"user:*"``, ``"verse:chapter_id:{chapter_id}:*"``.

    False when the text is empty: nothing is invalidated.

    Attributes:
        text: The pattern as written.
        directory: The smallest directory that covers the pattern, ending in a colon; ``None`` for no pattern.
        cut: The star stands inside a segment (``"user*"``), and the directory is not quite what was meant.
    """

    __slots__ = ("cut", "directory", "text")

    def __init__(self, text: str) -> None:
        """Parse a pattern.

        Raises:
            TemplateError: It has no star at its end, or one elsewhere, or nothing before it, or is no path.
        """
        self.text = text
        self.directory = _directory(text) if text else None
        self.cut = bool(text) and not text.endswith(":*")

    @property
    def fields(self) -> tuple[str, ...]:
        """Give the placeholders: what the pattern needs to be formatted."""
        return self.directory.fields if self.directory else ()

    def covers(self, template: Template) -> bool:
        """Tell whether keys of the template can lie in the directory."""
        if self.directory is None:
            return False
        above = self.directory.segments[:-1]
        pairs = zip(above, template.segments, strict=False)
        return len(template.segments) > len(above) and all(can_equal(a, b) for a, b in pairs)

    def __bool__(self) -> bool:
        return self.directory is not None

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _directory(text: str) -> Template:
    if text.count("*") != 1 or not text.endswith("*"):
        raise TemplateError(text, "an invalidation pattern has one '*', at its end: 'user:*' drops all of 'user:'")
    path = text[:-1]
    if not path:
        raise TemplateError(text, "would drop everything: name a directory, 'user:*'")
    # 'user*' has no directory above it but everything: it is read as 'user:*'.
    directory = path[: path.rindex(":") + 1] if ":" in path else f"{path}:"
    parsed = Template(directory)
    if paging := RESERVED & set(parsed.fields):
        raise TemplateError(text, f"a write knows no '{{{min(paging)}}}': end the pattern before it")
    return parsed
