"""What the templates of one model must be to each other, and to their job."""

from __future__ import annotations

from collections.abc import Sequence

from fastrdb.errors import TemplateError
from fastrdb.keys.template import RESERVED, Template, overlap


def check_templates(templates: Sequence[Template], derived: Sequence[Template] = ()) -> None:
    """Refuse templates that could format to one key, which would then hold either value.

    Args:
        templates: Those that a user wrote for one model.
        derived: Others that fastrdb makes of them (``<row directory>count``); these may equal each other.

    Raises:
        TemplateError: Two of them overlap, or one names a directory.
    """
    for index, template in enumerate(templates):
        if template.is_directory:
            raise TemplateError(template.text, "ends in ':', which names a directory: add a last word")
        for other in (*templates[:index], *derived):
            if overlap(template, other):
                problem = f"can give the same key as {other.text!r}: add a literal word to one of them"
                raise TemplateError(template.text, problem)


def check_list_template(template: Template) -> None:
    """Refuse a list template that leaves out ``{page}`` or ``{limit}``: pages would share a key.

    Raises:
        TemplateError: One is missing.
    """
    for field in sorted(RESERVED - set(template.fields)):
        raise TemplateError(template.text, f"a list needs '{{{field}}}' here, or its pages share one key")


def check_row_template(template: Template) -> None:
    """Refuse a row template that asks for ``{page}`` or ``{limit}``, which no row has.

    Raises:
        TemplateError: It has one.
    """
    for field in sorted(RESERVED & set(template.fields)):
        raise TemplateError(template.text, f"one row has no '{{{field}}}': it belongs into list_pattern")
