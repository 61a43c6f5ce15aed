"""Key templates: parsed, checked against each other, and formatted so that no two values share a key. No I/O.

A template is a path of segments between colons, each literal text with at most one placeholder:
``verse:chapter_id:{chapter_id}:page:{page}:limit:{limit}``. Literal text stands in the key as it is. A
value is percent-encoded, so that it is never empty, never holds a ``:`` and never starts with ``~``: a key's
segments are therefore its template's, and ``:~hash`` at its end is never a value.
"""

from fastrdb.keys.bound import BoundTemplate
from fastrdb.keys.checks import check_list_template, check_row_template, check_templates
from fastrdb.keys.encoding import encode, suffix
from fastrdb.keys.pattern import Pattern
from fastrdb.keys.template import RESERVED, Template, overlap

__all__ = [
    "RESERVED",
    "BoundTemplate",
    "Pattern",
    "Template",
    "check_list_template",
    "check_row_template",
    "check_templates",
    "encode",
    "overlap",
    "suffix",
]
