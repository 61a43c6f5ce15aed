"""What a Cache is told: wrong settings are refused where they are given, by their names."""

import traceback
from typing import Any

import pytest

from fastrdb import Cache, ConfigurationError

URL = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("timeout_s", "1"),
        ("timeout_s", 0),
        ("timeout_s", float("inf")),
        ("timeout_s", True),
        ("hold_s", "3"),
        ("hold_s", -1),
        ("max_cells", "x"),
        ("max_cells", 0),
        ("aged_bytes", "1"),
        ("aged_bytes", 0),
        ("prefix", 5),
        ("prefix", "a b"),
        ("on_unreachable", "wait"),
        ("outbox", 5),
        ("near", True),
    ],
)
def test_wrong_settings_are_named(name: str, given: Any) -> None:
    """A text from the environment, a number that means nothing: ConfigurationError says which, not a later failure."""
    with pytest.raises(ConfigurationError, match=f"^{name}"):
        Cache.from_url(URL, **{name: given})


@pytest.mark.parametrize("url", [None, 5, b"redis://"])
def test_a_url_is_text(url: Any) -> None:
    """A URL that is missing in the environment is told as that."""
    with pytest.raises(ConfigurationError, match=r"^url: .*it is text"):
        Cache.from_url(url)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("letter", ["/", "#"])
def test_a_password_that_is_no_part_of_a_url_is_not_shown(scheme: str, letter: str) -> None:
    """A password with a letter that ends the address is refused with what to write, and no part of it in any error."""
    with pytest.raises(ConfigurationError, match="%2F %23") as caught:
        Cache.from_url(f"{scheme}://app:s3cr3t{letter}x@127.0.0.1:1")
    assert "s3cr3t" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
