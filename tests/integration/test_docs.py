"""The documentation: every Python block runs, and the reference says what the code says."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import fastrdb
from fastrdb import Cache, Crud, FastRDBError
from fastrdb import errors as tree

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
REDIS = "redis://localhost:6379"  # what the pages write, and readers replace by theirs, as is done here
MARIADB = "mysql+asyncmy://app@localhost/app"  # so are these
POSTGRES = ("postgresql+asyncpg://app@localhost/app", "postgresql://localhost/shop")
OPENING = "tutorial.md#a-table"  # a page with this link goes on from the tutorial's first blocks
FIRST_BLOCKS = 3


class Block(NamedTuple):
    """A block of Python, and where it stands."""

    page: str
    line: int
    code: str

    def compiled(self, places: Mapping[str, str]) -> Any:
        """The code, with ``await`` allowed as at a prompt, and the page's line numbers.

        A ``try`` of the page shows an error: one that does not come fails the test.
        """
        code = self.code
        for written, ours in places.items():
            code = code.replace(written, ours)
        padded = "\n" * (self.line - 1) + code
        parsed = compile(padded, self.page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for statement in parsed.body:
            if isinstance(statement, ast.Try) and not statement.orelse:
                statement.orelse = ast.parse("raise AssertionError('no error was raised')").body
        return compile(parsed, self.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page, top to bottom."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, textwrap.dedent(found["code"]))
        for found in BLOCK.finditer(text)
    ]


def blocks_to_run(page: str) -> list[Block]:
    """The page's own blocks, after those of the tutorial that it goes on from."""
    own = blocks(page)
    if own and OPENING in (ROOT / page).read_text():
        return [*blocks("docs/tutorial.md")[:FIRST_BLOCKS], *own]
    return own


@asynccontextmanager
async def closing() -> AsyncIterator[dict[str, Any]]:
    """The names of one page; engines and caches that it leaves open are closed."""
    names: dict[str, Any] = {"__name__": "page"}
    yield names
    for value in names.values():
        if isinstance(value, AsyncEngine):
            await value.dispose()
        elif isinstance(value, Cache):
            await value.aclose()


@pytest.fixture
def places(request: pytest.FixtureRequest, valkey_url: str) -> dict[str, str]:
    """What the page of the test writes for servers, and where ours are."""
    code = "".join(block.code for block in blocks(request.node.callspec.params["page"]))
    found = {REDIS: valkey_url}
    for written, fixture in ((MARIADB, "mariadb_url"), *((url, "postgres_url") for url in POSTGRES)):
        if written in code:
            found[written] = request.getfixturevalue(fixture)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
async def test_python_blocks_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: dict[str, str]
) -> None:
    """A page's blocks run from top to bottom, sharing their names, and every assert in them holds."""
    monkeypatch.chdir(tmp_path)
    async with closing() as names:
        for block in blocks_to_run(page):
            code = block.compiled(places)
            if "asyncio.run(" in block.code:  # a program of its own
                await asyncio.to_thread(exec, code, names)
            elif (left := eval(code, names)) is not None:
                await left


async def test_harness_runs_on_the_example(postgres_url: str, valkey_url: str, tmp_path: Path) -> None:
    """The module that shows how to try one's own crud works with the command that stands below it."""
    (block,) = [block for block in blocks("docs/coherence.md") if block.code.startswith("# storm.py")]
    (tmp_path / "storm.py").write_text(block.code)
    names: dict[str, Any] = {"__name__": "storm"}
    exec(block.compiled({REDIS: valkey_url}), names)
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(names["Base"].metadata.create_all)
    await engine.dispose()
    servers = ["--postgres", postgres_url, "--redis", valkey_url]
    limits = ["--reads", "3000", "--seconds", "60", "--readers", "1", "--writers", "2"]
    command = [sys.executable, "-m", "fastrdb.testing.harness", "--subject", "storm:subject", *servers, *limits]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d+ reads in .* \d+ writes, .* kills: 0 stale", done.stdout)


def test_no_block_is_overlooked() -> None:
    """Whatever is fenced as Python is found by the test above, and everything else fenced is no Python."""
    for page in PAGES:
        fences = re.findall(r"^ *```(\w+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert fences.count("python") == len(blocks(page)), page
        assert set(fences) <= {"python", "text", "console"}, page


def test_readme_example_is_short() -> None:
    """The example of the README is one block of at most forty lines of code."""
    (example,) = blocks("README.md")
    assert len([line for line in example.code.splitlines() if line.strip()]) <= 40


def test_readme_links_lead_somewhere() -> None:
    """Every relative link of the README leads to a file."""
    for target in re.findall(r"\]\(([\w/.-]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), target


def shown(function: Any) -> str:
    """A signature as the reference shows it: names and defaults."""
    signature = inspect.signature(function)
    kept = [p.replace(annotation=p.empty) for name, p in signature.parameters.items() if name not in ("self", "cls")]
    return str(signature.replace(parameters=kept, return_annotation=signature.empty))


def methods() -> Iterator[tuple[str, Any]]:
    """The public methods of Crud."""
    for name, member in inspect.getmembers(Crud, inspect.isfunction):
        if not name.startswith("_"):
            yield name, member


def test_reference_has_every_method() -> None:
    """Every public method of Crud stands in the reference with its signature, awaited if that is needed."""
    page = (ROOT / "docs/reference/crud.md").read_text()
    assert f"Crud{shown(Crud.__init__)}" in page
    for name, method in methods():
        awaited = "await " if inspect.iscoroutinefunction(method) else ""
        assert f"\n{awaited}crud.{name}{shown(method)} ->" in page, name


def test_reference_names_no_method_that_is_not_there() -> None:
    """No method stands in the reference that Crud lacks."""
    page = (ROOT / "docs/reference/crud.md").read_text()
    named = set(re.findall(r"^(?:await )?crud\.(\w+)\(", page, re.MULTILINE))
    assert named == {name for name, _ in methods()}


def test_reference_has_the_ways_to_build_a_cache() -> None:
    """``from_url`` and ``from_client`` stand in the reference with all arguments but the tests' own."""
    page = (ROOT / "docs/reference/cache.md").read_text()
    for way in (Cache.from_url, Cache.from_client):
        assert f"\nCache.{way.__name__}{re.sub(r', parts=.*', ')', shown(way))}\n" in page


def test_every_public_name_is_documented() -> None:
    """Every name that ``fastrdb`` exports occurs on the pages of the reference."""
    pages = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    assert [name for name in fastrdb.__all__ if not re.search(rf"\b{name}\b", pages)] == []


def test_drawing_of_the_errors_is_complete() -> None:
    """The tree of errors in the reference has every class, once."""
    drawing = (ROOT / "docs/reference/errors.md").read_text().split("```")[1]
    drawn = re.findall(r"^(?:text\n|[│ ]*[├└]── )(\w+)", drawing, re.MULTILINE)
    classes = {error for error in vars(tree).values() if isinstance(error, type) and issubclass(error, FastRDBError)}
    assert sorted(drawn) == sorted(error.__name__ for error in classes)
