"""Keyword filters: what they mean, what is refused, and what equal filters have in common."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator

from fastrdb.errors import InputError, UnknownField, UnknownOperator, ValueRefused
from fastrdb.filters import MAX_VALUES, OPERATORS, FieldSet, Filter, parse
from fastrdb.values import column_values


class Mood(enum.Enum):
    GOOD = "g"
    BAD = "b"


class Lowered(TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value.lower()


COLUMNS: list[sa.ColumnClause[Any]] = [
    sa.column("id", sa.Integer()),
    sa.column("age", sa.Integer()),
    sa.column("name", sa.String()),
    sa.column("nick", Lowered()),
    sa.column("mood", sa.Enum(Mood)),
    sa.column("price", sa.Numeric(10, 2)),
    sa.column("tags", sa.ARRAY(sa.String())),
    sa.column("extra", sa.JSON()),
    sa.column("limit", sa.Integer()),
    sa.column("or", sa.Integer()),
]
FIELDS = FieldSet("User", {c.name: (c, column_values(c.name, c.type)) for c in COLUMNS})


def sql(filter_: Filter) -> str:
    """The condition with its values in it."""
    statement = sa.select(sa.column("id")).where(*filter_.build(FIELDS)).params(filter_.params)
    text = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    return text.partition(" \nWHERE ")[2]


@pytest.mark.parametrize(
    ("given_filters", "expected"),
    [
        ({}, ""),
        ({"age": 18}, "age = 18"),
        ({"age": "18"}, "age = 18"),
        ({"age": None}, "age IS NULL"),
        ({"age": [1, 2]}, "age IN (1, 2)"),
        ({"age": (1,)}, "age IN (1)"),
        ({"age": []}, "age IN (SELECT 1 FROM (SELECT 1) WHERE 1!=1)"),
        ({"age": [1, None]}, "age IN (1) OR age IS NULL"),
        ({"age": [None]}, "age IS NULL"),
        ({"age": {"=": 1}}, "age = 1"),
        ({"age": {"==": None}}, "age IS NULL"),
        ({"age": {"!=": 1}}, "age != 1"),
        ({"age": {"!=": None}}, "age IS NOT NULL"),
        ({"age": {">": 1, "<=": 5}}, "age <= 5 AND age > 1"),
        ({"age": {">=": 1}}, "age >= 1"),
        ({"age": {"<": "7"}}, "age < 7"),
        ({"age": {"in": {3}}}, "age IN (3)"),
        ({"age": {"in": range(2)}}, "age IN (0, 1)"),
        ({"age": {"in": {1: "a"}.keys()}}, "age IN (1)"),
        ({"age": {"not_in": [1, 2]}}, "(age NOT IN (1, 2))"),
        ({"age": {"not_in": [1, None]}}, "(age NOT IN (1)) AND age IS NOT NULL"),
        ({"age": {"between": [1, 5]}}, "age BETWEEN 1 AND 5"),
        ({"age": {"is": None}}, "age IS NULL"),
        ({"age": {"is": 1}}, "age = 1"),
        ({"age": {"is_not": None}}, "age IS NOT NULL"),
        ({"age": {"is_not": 1}}, "age IS NOT ?"),
        ({"name": {"like": "J%"}}, "name LIKE 'J%'"),
        ({"name": {"not_like": "J%"}}, "name NOT LIKE 'J%'"),
        ({"name": {"ilike": "J%"}}, "lower(name) LIKE lower('J%')"),
        ({"name": {"not_ilike": "J%"}}, "lower(name) NOT LIKE lower('J%')"),
        ({"name": {"startswith": "50%_/"}}, "name LIKE '50/%/_//%' ESCAPE '/'"),
        ({"name": {"endswith": "a"}}, "name LIKE '%a' ESCAPE '/'"),
        ({"name": {"contains": "a"}}, "name LIKE '%a%' ESCAPE '/'"),
        ({"nick": {"startswith": "JO"}}, "nick LIKE 'jo%' ESCAPE '/'"),
        (
            {"age": {"or": [1, None, [2, 3], {">": 5, "<": 9}]}},
            "age = 1 OR age IS NULL OR age IN (2, 3) OR age < 9 AND age > 5",
        ),
        ({"age": {"or": [1]}}, "age = 1"),
        ({"age": {"or": [1, 2], ">": 0}}, "age > 0 AND (age = 1 OR age = 2)"),
        ({"mood": "g"}, "mood = 'GOOD'"),
        ({"price": {">": "1.505"}}, "price > 1.505"),
        ({"tags": {"=": ["a"]}}, "tags = "),
        ({"extra": None}, "extra IS NULL"),
        ({"extra": {"is_not": None}}, "extra IS NOT NULL"),
        ({"name": "x", "age": 1}, "age = 1 AND name = 'x'"),
    ],
)
def test_what_a_filter_means(given_filters: dict[str, Any], expected: str) -> None:
    """Each form of a keyword filter is the SQL that its docs say."""
    if "tags" in given_filters:  # SQLite has no arrays
        assert str(parse(FIELDS, given_filters).build(FIELDS)[0]).startswith(expected)
    else:
        assert sql(parse(FIELDS, given_filters)) in (expected, f"({expected})")


def test_a_mapping_of_filters_reaches_reserved_names() -> None:
    """``filters=`` as a mapping must hold beside the keywords."""
    assert sql(parse(FIELDS, {"age": 1}, {"limit": 5, "or": [1]})) == 'age = 1 AND "limit" = 5 AND "or" IN (1)'


def test_a_list_of_filters_is_alternatives() -> None:
    """Of ``filters=`` as a list, one mapping must hold, beside the keywords."""
    parsed = parse(FIELDS, {"age": 1}, [{"name": "a", "id": 1}, {"name": {"!=": "b"}}])
    assert sql(parsed) == "age = 1 AND (id = 1 AND name = 'a' OR name != 'b')"


@pytest.mark.parametrize("filters", [[], [{}], [{"id": 1}, {}], [1], "id", 5, [["id", 1]]])
def test_filters_that_are_no_filters_are_refused(filters: Any) -> None:
    """An empty alternative would match every row, and an empty list none: both are mistakes."""
    with pytest.raises(InputError, match="filters="):
        parse(FIELDS, {}, filters)


def test_an_unknown_field_names_the_valid_ones() -> None:
    """A misspelt field is never ignored."""
    with pytest.raises(UnknownField, match=r"User has no field 'nam'; did you mean 'name'\? valid: age, ") as caught:
        parse(FIELDS, {"nam": "x"})
    assert caught.value.owner == "User"
    with pytest.raises(UnknownField):
        parse(FIELDS, {}, [{"id": 1}, {"nam": 1}])
    with pytest.raises(UnknownField, match="no field '5'"):
        parse(FIELDS, {}, {5: 1})  # type: ignore[dict-item]


def test_an_unknown_operator_names_the_valid_ones() -> None:
    """A misspelt operator is never ignored."""
    with pytest.raises(UnknownOperator, match=r"no operator '=>'; valid: !=, <") as caught:
        parse(FIELDS, {"age": {"=>": 1}})
    with pytest.raises(UnknownOperator, match="no operator '5'"):
        parse(FIELDS, {"age": {5: 1}})
    assert set(caught.value.valid) == set(OPERATORS)


@pytest.mark.parametrize(
    "given_filters",
    [
        {"age": "x"},
        {"age": {}},
        {"age": {">": None}},
        {"age": {"between": [1]}},
        {"age": {"between": [1, None]}},
        {"age": {"between": "12"}},
        {"age": {"between": {1, 2}}},
        {"age": {"in": 5}},
        {"age": {"in": "123"}},
        {"age": {"in": {"a": 1}}},
        {"age": {"in": ["x"]}},
        {"age": {"not_in": None}},
        {"age": list(range(MAX_VALUES + 1))},
        {"age": {"like": "1%"}},
        {"age": {"=": [1]}},
        {"age": {"or": []}},
        {"age": {"or": 5}},
        {"age": {"or": "ab"}},
        {"age": {"or": [{}]}},
        {"age": {"or": [1, "x"]}},
        {"age": sa.column("id")},
        {"nick": sa.column("id")},
        {"mood": {"ilike": "g%"}},
        {"mood": "GREEN"},
        {"name": {"like": None}},
        {"name": {"startswith": 5}},
        {"name": {"contains": "a\0"}},
        {"tags": ["a"]},
        {"tags": {"in": [["a"]]}},
        {"tags": {">": ["a"]}},
        {"tags": {"contains": "a"}},
        {"tags": {"=": "a"}},
        {"extra": 5},
        {"extra": ["a"]},
        {"extra": {"!=": 1}},
        {"extra": {"is_not": 1}},
        {"extra": {">": 1}},
        {"extra": {"in": [1]}},
        {"extra": {"like": "x"}},
    ],
)
def test_an_operand_that_cannot_work_is_refused(given_filters: dict[str, Any]) -> None:
    """A wrong value is refused before anything is sent, and the refusal names the field."""
    with pytest.raises(ValueRefused) as caught:
        parse(FIELDS, given_filters)
    assert caught.value.field == next(iter(given_filters))


@pytest.mark.parametrize(
    ("given_filters", "plain"),
    [
        ({"age": "18", "name": None}, {"age": 18, "name": None}),
        ({"age": {"=": 18}}, {"age": 18}),
        ({"age": {"=": 18, ">": 1}}, {"age": 18}),
        ({"age": {"=": 18, "==": "18"}}, {"age": 18}),
        ({"age": {"=": 18, "is": 19}}, {}),
        ({"age": {"=": 18, "is": None}}, {}),
        ({"age": [18]}, {}),
        ({"age": {">": 18}}, {}),
        ({"age": {"or": [18, 19]}}, {}),
        ({"mood": "b"}, {"mood": Mood.BAD}),
    ],
)
def test_plain_values_are_the_fields_that_equal_one_value(given_filters: dict[str, Any], plain: dict[str, Any]) -> None:
    """A field that must equal one value is plain, coerced; any other is not."""
    assert parse(FIELDS, given_filters).plain == plain
    assert parse(FIELDS, {}, given_filters).plain == plain
    assert parse(FIELDS, {}, [given_filters, {"id": 1}]).plain == {}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"age": 1, "name": "x"}, {"name": "x", "age": "1"}),
        ({"age": 1}, {"age": {"==": 1}}),
        ({"age": 1}, {"age": {"is": 1}}),
        ({"age": 1}, {"age": [1]}),
        ({"age": 1}, {"age": [1, 1]}),
        ({"age": [1, 2]}, {"age": {"in": {2, 1}}}),
        ({"age": None}, {"age": {"is": None}}),
        ({"age": [1, None]}, {"age": {"or": [None, 1]}}),
        ({"age": {">": 1, "<": 2}}, {"age": {"<": 2, ">": "1"}}),
        ({"age": {"!=": 1}}, {"age": {"not_in": [1]}}),
        ({"price": Decimal("1.50")}, {"price": 1.5}),
        ({"mood": "GOOD"}, {"mood": Mood.GOOD}),
        ({"age": {"=": 1, "==": 1}}, {"age": 1}),
    ],
)
def test_equal_meaning_has_one_canonical_form(one: dict[str, Any], two: dict[str, Any]) -> None:
    """How a filter was written does not show in the key."""
    assert parse(FIELDS, one).canonical == parse(FIELDS, {}, two).canonical


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"age": 1}, {"id": 1}),
        ({"age": 1}, {"age": None}),
        ({"age": 1}, {"age": {">": 1}}),
        ({"name": "1"}, {"name": {"like": "1"}}),
        ({"name": None}, {"name": "None"}),
        ({"name": []}, {"name": [""]}),
        ({"nick": 1}, {"nick": "1"}),
        ({"name": ["a", "b"]}, {"name": ["a,b"]}),
        ({"age": {"is_not": 1}}, {"age": {"!=": 1}}),
        ({"age": {"or": [1, {">": 2}]}}, {"age": {"or": [2, {">": 1}]}}),
        ({"age": {"or": [1, {">": 2}]}}, {"age": 1}),
        ({"name": {"startswith": "a"}}, {"name": {"endswith": "a"}}),
    ],
)
def test_different_meaning_has_two_canonical_forms(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Filters that can find different rows never share a key."""
    assert parse(FIELDS, one).canonical != parse(FIELDS, two).canonical


def test_the_canonical_form_is_part_of_the_wire_format() -> None:
    """It is JSON, and does not change between releases."""
    parsed = parse(FIELDS, {"name": "x", "age": {"or": [1, {">": 2, "<": 5}]}, "mood": ["b", "g"]})
    assert json.dumps(parsed.canonical) == (
        '[["mood", "in", "BAD", "GOOD"], ["name", "=", "x"], '
        '["or", [[["age", "<", "5"], ["age", ">", "2"]], [["age", "=", "1"]]]]]'
    )


@pytest.mark.parametrize(
    ("given_filters", "without", "rest"),
    [
        ({"age": 1}, {"age"}, None),
        ({}, set(), None),
        ({"age": 1, "name": "x"}, {"age"}, {"name": "x"}),
        ({"age": None, "name": "x"}, {"age", "name", "id"}, None),
        ({"age": {"=": 1, ">": 0}}, {"age"}, {"age": {">": 0}}),
        ({"age": {"=": 1, "is": 2}}, {"age"}, {"age": {"=": 1, "is": 2}}),
        ({"age": [1]}, {"age"}, {"age": 1}),
        ({"age": {"or": [1, 2]}}, {"age"}, {"age": {"or": [1, 2]}}),
    ],
)
def test_only_plain_values_can_be_left_out(
    given_filters: dict[str, Any], without: set[str], rest: dict[str, Any] | None
) -> None:
    """What the template's fields do not say of the filter stays in its canonical form."""
    expected = None if rest is None else parse(FIELDS, rest).canonical
    assert parse(FIELDS, given_filters).canonical_without(without) == expected


operand = st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3) | st.none(), max_size=3)
operators = st.fixed_dictionaries(
    {},
    optional={
        "=": st.integers(0, 3) | st.none(),
        "!=": st.integers(0, 3) | st.none(),
        ">": st.integers(0, 3),
        "in": st.lists(st.integers(0, 3) | st.none(), max_size=3),
        "between": st.tuples(st.integers(0, 3), st.integers(0, 3)),
    },
).filter(bool)
alternatives = st.fixed_dictionaries({"or": st.lists(operand | operators, min_size=1, max_size=3)})
keywords = st.dictionaries(st.sampled_from(["id", "age", "limit"]), operand | operators | alternatives, max_size=3)
alternative = st.dictionaries(st.sampled_from(["id", "age"]), operand | operators, min_size=1, max_size=2)
filters = st.none() | keywords | st.lists(alternative, min_size=1, max_size=2)


@given(keywords, filters, keywords, filters)
def test_equal_shapes_build_equal_sql(one: Any, further: Any, two: Any, further_two: Any) -> None:
    """The shape alone decides the SQL and the names of its parameters, and it decides no less than that."""
    first, second = parse(FIELDS, one, further), parse(FIELDS, two, further_two)
    assert hash(first.shape) == hash(parse(FIELDS, one, further).shape)

    def built(parsed: Filter) -> list[str]:
        return [str(each.compile(dialect=postgresql.dialect())) for each in parsed.build(FIELDS)]

    assert (first.shape == second.shape) == (built(first) == built(second))
    if first.shape == second.shape:
        assert first.params.keys() == second.params.keys()


@given(keywords, filters)
def test_parameters_are_those_of_the_sql(given_keywords: Any, further: Any) -> None:
    """Every parameter that the SQL names has a value, and no other has."""
    parsed = parse(FIELDS, given_keywords, further)
    compiled = sa.and_(sa.true(), *parsed.build(FIELDS)).compile()
    assert compiled.params.keys() == parsed.params.keys()


@given(keywords, filters)
def test_the_order_of_keywords_does_not_matter(given_keywords: dict[str, Any], further: Any) -> None:
    """Filters that differ in their order only have one shape and one canonical form."""
    turned = dict(reversed(given_keywords.items()))
    first, second = parse(FIELDS, given_keywords, further), parse(FIELDS, turned, further)
    assert json.dumps(first.canonical) == json.dumps(second.canonical)
    assert first.shape == second.shape


def test_a_parameter_is_not_rounded_to_the_scale_of_its_column() -> None:
    """Drivers cast a parameter to its SQL type; ours leaves the scale out."""
    [condition] = parse(FIELDS, {"price": {">": "1.505"}}).build(FIELDS)
    assert str(condition.compile(dialect=postgresql.asyncpg.dialect())) == "price > $1::NUMERIC"


def test_a_field_set_shows_its_names() -> None:
    """Names come in the model's order, and can be asked for."""
    assert list(FIELDS.names)[:2] == ["id", "age"]
    assert "age" in FIELDS
    assert "nam" not in FIELDS
    assert repr(FIELDS).startswith("FieldSet('User', id, age, ")
