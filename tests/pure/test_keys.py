"""Key templates: what is refused, and that no two values ever share a key."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fastrdb.errors import MissingKeyField, TemplateError, ValueRefused
from fastrdb.keys import (
    BoundTemplate,
    Pattern,
    Template,
    check_list_template,
    check_row_template,
    check_templates,
    encode,
    overlap,
    suffix,
)
from fastrdb.values import column_values

TYPES: dict[str, Any] = {
    "id": sa.Integer(),
    "chapter_id": sa.Integer(),
    "owner": sa.Uuid(),
    "email": sa.String(),
    "name": sa.String(),
    "tags": sa.ARRAY(sa.String),
    "extra": sa.JSON(),
    "mood": sa.PickleType(),
}
VALUES = {name: column_values(name, type_) for name, type_ in TYPES.items()}
AWKWARD = [
    "",
    "a:b",
    "*",
    "{x}",
    "%3A",
    "%",
    "%N",
    "%E",
    "~",
    "~abc",
    "a~",
    " ",
    "\t",
    "é",
    "e\u0301",
    "\u2028",
    "[",
    "?",
]
AWKWARD += [
    "x" * 128,
    "x" * 129,
    "%" * 42,
    "%" * 43,
    "é" * 64,
    "é" * 65,
    "x" * 10_000,
    "x" * 10_001,
    "None",
    "1",
]
texts = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=140)
maybe = st.none() | texts


def bound(text: str, prefix: str = "") -> BoundTemplate:
    return BoundTemplate(Template(text), VALUES, prefix)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("user:{id", "unbalanced"),
        ("user:id}", "unbalanced"),
        ("user:{{id}}", "unbalanced"),
        ("user:{}", "no field's name"),
        ("user:{0}", "no field's name"),
        ("user:{a.b}", "no field's name"),
        ("user:{a[0]}", "no field's name"),
        ("user:{id:>5}", "no field's name"),
        ("user:{id!r}", "no field's name"),
        ("user:{id}:{id}", "twice"),
        ("user: {id}", "white space"),
        ("user:{ id }", "white space"),
        ("user:\x00{id}", "control"),
        ("user:\u00a0{id}", "white space"),
        ("user:\ud800", "surrogate"),
        ("user:*", r"'\*'"),
        ("user:100%:{id}", "'%'"),
        ("user:{id}{email}", "between"),
        ("user:{id}-{email}", "between"),
        ("fastrdb:{id}", "reserved"),
        ("{id}", "first word"),
        ("{id}:user", "first word"),
        ("u{id}:x", "first word"),
        ("user", "first word"),
        (":user:{id}", "first word"),
        ("user:~{id}", "'~'"),
    ],
)
def test_a_template_that_cannot_work_is_refused(text: str, says: str) -> None:
    """The refusal says what is wrong with the template."""
    with pytest.raises(TemplateError, match=says) as caught:
        Template(text)
    assert caught.value.template == text


def test_a_template_knows_its_parts() -> None:
    """Fields, root and segments are read from the text."""
    template = Template("verse:chapter-{chapter_id}.x:page:{page}")
    assert template.fields == ("chapter_id", "page")
    assert template.root == "verse:"
    assert template.format({"chapter_id": "3", "page": "1"}) == "verse:chapter-3.x:page:1"
    assert repr(template) == "Template('verse:chapter-{chapter_id}.x:page:{page}')"


def test_templates_are_equal_by_text() -> None:
    """Two templates of one text are one in a set, and no template equals its text."""
    assert len({Template("user:{id}"), Template("user:{id}")}) == 1
    assert Template("user:{id}") != Template("user:{email}")
    assert Template("user:{id}") != "user:{id}"


def test_formatting_without_a_value_names_the_field() -> None:
    """A missing value is a typed error."""
    with pytest.raises(MissingKeyField, match="id=…"):
        Template("user:{id}").format({})


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("verse:chapter_id:{chapter_id}:page:{page}:limit:{limit}", "verse:chapter_id:{chapter_id}:page:"),
        ("user:page:{page}:limit:{limit}", "user:page:"),
        ("user:p{page}:limit:{limit}", "user:"),
        ("user:{page}:{chapter_id}:{limit}", "user:"),
        ("user:{id}", "user:{id}:"),
        ("user:current", "user:current:"),
    ],
)
def test_the_row_directory_ends_before_what_is_no_column(text: str, directory: str) -> None:
    """The directory is what a row alone can name, and is its own directory."""
    found = Template(text).directory(VALUES)
    assert found.text == directory
    assert found.is_directory
    assert found.directory(VALUES) == found


def test_the_tutorials_key_is_plain() -> None:
    """An ordinary e-mail address stands in the key as it is."""
    assert bound("user:email:{email}").key({"email": "john@example.com"}) == b"user:email:john@example.com"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        (None, "%N"),
        ("", "%E"),
        ("a:b", "a%3Ab"),
        ("100%", "100%25"),
        ("*?[]{}", "%2A%3F%5B%5D%7B%7D"),
        ("~a~", "%7Ea~"),
        ("a b\n", "a%20b%0A"),
        ("\u2028", "%E2%80%A8"),
        ("é", "é"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "%Hb9ee96f69e8210c624fee55d71d5a54f"),
    ],
)
def test_the_encoding_is_the_wire_format(text: str | None, encoded: str) -> None:
    """How a value stands in a key does not change between releases."""
    assert encode(text) == encoded


@given(maybe)
def test_an_encoded_value_is_short_and_never_reads_as_structure(text: str | None) -> None:
    """It has 1 to 128 bytes, no colon, no blank, nothing that a pattern would read, and no leading tilde."""
    encoded = encode(text)
    assert 1 <= len(encoded.encode()) <= 128
    assert not re.search(r"[:*?\[\]{}\s\x00-\x1f\x7f]", encoded)
    assert not encoded.startswith("~")


@given(maybe, maybe)
def test_encoding_is_injective(one: str | None, two: str | None) -> None:
    """Two texts never share an encoding."""
    assert (encode(one) == encode(two)) == (one == two)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_share_no_encoding(text: str) -> None:
    """Each text of the list of traps has an encoding of its own."""
    assert [other for other in [None, *AWKWARD] if encode(other) == encode(text)] == [text]


TEMPLATES = [
    "user:{email}",
    "user:{email}:{name}",
    "user:x-{email}.y:of:{name}",
    "user:email:{email}",
    "user:{id}:{name}",
]
bindings = st.sampled_from([bound(text) for text in TEMPLATES])
rows = st.fixed_dictionaries({"email": maybe, "name": maybe, "id": st.none() | st.integers(0, 99)})


@given(bindings, rows, bindings, rows)
@example(bound(TEMPLATES[1]), {"email": "a:b", "name": "c"}, bound(TEMPLATES[1]), {"email": "a", "name": "b:c"})
@example(bound(TEMPLATES[1]), {"email": "a", "name": "~x"}, bound(TEMPLATES[0]), {"email": "a:~x"})
def test_keys_are_injective(
    one: BoundTemplate, one_row: dict[str, Any], two: BoundTemplate, two_row: dict[str, Any]
) -> None:
    """Two rows share a key only if their key columns are equal; two templates only if they overlap."""
    if one.key(one_row) != two.key(two_row):
        return
    if one.template == two.template:
        assert [one_row[name] for name in one.columns] == [two_row[name] for name in two.columns]
    else:
        assert overlap(one.template, two.template)


@given(bindings, rows)
def test_every_key_lies_under_its_root(binding: BoundTemplate, row: dict[str, Any]) -> None:
    """All keys of a template start with its root, whatever the values."""
    assert binding.key(row).decode().startswith(binding.template.root)


@given(bindings, rows, st.text(max_size=3), bindings, rows)
def test_a_key_with_a_suffix_is_no_other_entrys_key(
    one: BoundTemplate, one_row: dict[str, Any], extras: str, two: BoundTemplate, two_row: dict[str, Any]
) -> None:
    """What is appended for further filters cannot be written by a value."""
    assert one.key(one_row) + suffix(extras).encode() != two.key(two_row)


@given(st.sampled_from(TEMPLATES), rows)
def test_a_bound_template_formats_as_its_template_does(text: str, row: dict[str, Any]) -> None:
    """The prepared pieces give what encoding and formatting give, behind the prefix."""
    encoded = {name: encode(None if value is None else str(value)) for name, value in row.items()}
    assert bound(text, "app:").key(row).decode() == "app:" + Template(text).format(encoded)


def test_one_value_has_one_key_however_it_is_written() -> None:
    """``1`` and ``"1"`` are one integer, and a UUID's text is that UUID."""
    by_id, by_owner = bound("user:{id}"), bound("user:of:{owner}")
    assert by_id.key({"id": 1}) == by_id.key({"id": "1"}) == b"user:1"
    digits = "12345678123456781234567812345678"
    assert by_owner.key({"owner": digits}) == b"user:of:12345678-1234-5678-1234-567812345678"


def test_values_of_unknown_types_never_share_a_key() -> None:
    """Where the column's type is unknown, ``1`` and ``"1"`` are two values."""
    by_mood = bound("user:{mood}")
    assert by_mood.key({"mood": 1}) != by_mood.key({"mood": "1"})


@pytest.mark.parametrize("value", [[1], (1,), {1}, frozenset(), {"=": 1}])
@pytest.mark.parametrize("field", ["id", "email", "mood"])
def test_a_key_takes_plain_values_only(field: str, value: object) -> None:
    """A list or an operator cannot stand in a key."""
    with pytest.raises(ValueRefused, match="one plain value"):
        bound(f"user:{{{field}}}").key({field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("id", True), ("id", 1.5), ("email", "\ud800"), ("email", "a\0"), ("email", 1)]
)
def test_a_key_refuses_what_the_column_refuses(field: str, value: object) -> None:
    """A value that no row can have has no key."""
    with pytest.raises(ValueRefused, match=f"^'{field}'"):
        bound(f"user:{{{field}}}").key({field: value})


@pytest.mark.parametrize("value", [True, "1", -1, None, 1.0])
def test_page_and_limit_are_whole_numbers(value: object) -> None:
    """``page`` and ``limit`` stand in the key as they are, so they must be numbers."""
    pages = bound("user:page:{page}:limit:{limit}")
    assert pages.key({"page": 2, "limit": 10}) == b"user:page:2:limit:10"
    with pytest.raises(ValueRefused, match="whole number"):
        pages.key({"page": value, "limit": 10})


def test_a_missing_key_field_is_named() -> None:
    """A read that lacks a field of the template says which."""
    with pytest.raises(MissingKeyField) as caught:
        bound("user:{id}:{email}").key({"id": 1})
    assert (caught.value.field, caught.value.template) == ("email", "user:{id}:{email}")


def test_an_unknown_placeholder_names_the_valid_ones() -> None:
    """A template for another model is refused at once."""
    with pytest.raises(TemplateError, match=r"'\{mail\}' is no field; valid: chapter_id, email.*page"):
        bound("user:{mail}")


@pytest.mark.parametrize("field", ["tags", "extra"])
def test_columns_without_plain_values_cannot_be_placeholders(field: str) -> None:
    """Arrays and JSON are refused when the template is bound."""
    with pytest.raises(TemplateError, match="cannot stand in a key"):
        bound(f"user:{{{field}}}")


def test_a_bound_template_knows_its_columns_and_whether_they_are_exact() -> None:
    """``page`` and ``limit`` are no columns; one inexact column makes the template inexact."""
    assert bound("user:{id}:page:{page}:limit:{limit}").columns == ("id",)
    assert bound("user:{id}:{owner}").exact
    assert not bound("user:{id}:{email}").exact
    assert repr(bound("user:{id}", "p:")) == "BoundTemplate('p:user:{id}')"


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("user:{id}", "user:{email}", True),
        ("user:{id}", "user:me", True),
        ("user:{id}", "user:id:{id}", False),
        ("user:email:{email}", "user:name:{name}", False),
        ("user:{email}:{page}", "user:page:{email}", True),
        ("user:page:{page}:limit:{limit}", "user:page:count:limit:{limit}", False),
        ("user:a-{id}", "user:b-{email}", False),
        ("user:a-{id}", "user:{email}-b", True),
        ("user:a-{id}", "user:a-", False),
        ("user:{id}.x", "user:{id}.y", False),
        ("user:{id}.x", "user:7.x", True),
        ("user:ab{id}ba", "user:aba", False),
    ],
)
def test_overlap(one: str, two: str, expected: bool) -> None:
    """Templates overlap when some values give both one key."""
    assert overlap(Template(one), Template(two)) is expected
    assert overlap(Template(two), Template(one)) is expected


small = st.sampled_from(["a", "b", "ab", "1", "a-", "-b"])
parts = st.one_of(small, st.tuples(st.sampled_from(["", "a", "a-"]), st.sampled_from(["", "b", "-b"])))


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """Draw a template over few letters, so that equal keys are likely."""
    words = []
    for number, part in enumerate(draw(st.lists(parts, min_size=1, max_size=3))):
        field = draw(st.sampled_from([f"f{number}", f"f{number}", "page"]))
        words.append(part if isinstance(part, str) else f"{part[0]}{{{field}}}{part[1]}")
    assume(sum("{page}" in word for word in words) < 2)
    return Template(":".join(["u", *words]))


@given(templates(), templates(), st.data())
def test_templates_with_a_common_key_overlap(one: Template, two: Template, data: st.DataObject) -> None:
    """``overlap`` is never false for two templates that give one key."""

    def key(template: Template) -> str:
        number, text = st.sampled_from(["1", "11"]), small | st.just("~").map(encode)
        return template.format({f: data.draw(number if f == "page" else text) for f in template.fields})

    assert key(one) != key(two) or overlap(one, two)


@pytest.mark.parametrize(
    ("text", "directory", "cut"),
    [
        ("user:*", "user:", False),
        ("user*", "user:", True),
        ("verse:chapter_id:{chapter_id}:*", "verse:chapter_id:{chapter_id}:", False),
        ("verse:chapter_id:{chapter_id}*", "verse:chapter_id:", True),
        ("verse:chap*", "verse:", True),
    ],
)
def test_a_pattern_is_the_smallest_directory_that_covers_it(text: str, directory: str, cut: bool) -> None:
    """What ends in a star names a directory."""
    pattern = Pattern(text)
    assert pattern.directory == Template(directory)
    assert pattern.fields == Template(directory).fields
    assert pattern.cut is cut
    assert pattern


def test_the_empty_pattern_is_none() -> None:
    """An empty pattern is false, and covers nothing."""
    pattern = Pattern("")
    assert not pattern
    assert (pattern.directory, pattern.fields, pattern.cut) == (None, (), False)
    assert not pattern.covers(Template("user:{id}"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user:{id}", "at its end"),
        ("user:*:x", "at its end"),
        ("user:*:*", "at its end"),
        ("*", "everything"),
        ("{id}:*", "first word"),
        ("user:page:{page}:*", "a write knows no '{page}'"),
        ("fastrdb:*", "reserved"),
    ],
)
def test_a_pattern_that_names_no_directory_is_refused(text: str, says: str) -> None:
    """A star anywhere but after a literal path is an error that says so."""
    with pytest.raises(TemplateError, match=says):
        Pattern(text)


@pytest.mark.parametrize(
    ("pattern", "template", "expected"),
    [
        ("user:*", "user:email:{email}", True),
        ("user:*", "todo:{id}", False),
        ("todo:*", "user:email:{email}", False),
        ("user:email:*", "user:{email}:x", True),
        ("user:email:*", "user:{email}", False),
        ("user:name:*", "user:email:{email}", False),
        ("user:{id}:*", "user:email:{email}", True),
        ("user:email:{email}:*", "user:email:{email}", False),
    ],
)
def test_a_pattern_covers_templates_whose_keys_can_lie_below(pattern: str, template: str, expected: bool) -> None:
    """Keys lie below a directory when their first segments are its."""
    assert Pattern(pattern).covers(Template(template)) is expected


def test_templates_that_can_share_a_key_are_refused() -> None:
    """Two templates of one model, or one and a key that is made of another, may not meet."""
    one, two, pages = Template("user:{id}"), Template("user:{email}"), Template("user:all:{page}:{limit}")
    with pytest.raises(TemplateError, match=r"same key as 'user:\{id\}'"):
        check_templates([one, two])
    with pytest.raises(TemplateError, match="same key as 'user:count'"):
        check_templates([one], [Template("user:count")])
    check_templates([one, pages], [Template("user:all:count"), Template("user:all:count")])


def test_an_entry_cannot_be_a_directory() -> None:
    """A template that ends in a colon is refused: that is how directories are written."""
    with pytest.raises(TemplateError, match="names a directory"):
        check_templates([Template("user:{id}:")])


def test_a_list_needs_page_and_limit_and_a_row_has_neither() -> None:
    """Pages of a list must differ in their keys."""
    check_list_template(Template("user:page:{page}:limit:{limit}"))
    check_row_template(Template("user:{id}"))
    with pytest.raises(TemplateError, match=r"'\{limit\}'"):
        check_list_template(Template("user:page:{page}"))
    with pytest.raises(TemplateError, match="list_pattern"):
        check_row_template(Template("user:{page}"))


def test_a_suffix_depends_on_meaning_only() -> None:
    """The order of a dict's keys does not show; values and their types do."""
    assert suffix({"a": 1, "b": None}) == suffix({"b": None, "a": 1})
    assert suffix({"a": 1}) != suffix({"a": "1"})
    assert re.fullmatch(":~[0-9a-f]{32}", suffix([]))
