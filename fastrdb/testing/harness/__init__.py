"""Counts stale reads: processes that read and write through a crud on real servers, and are killed at random.

On a table of the harness's own::

    python -m fastrdb.testing.harness --postgres postgresql+asyncpg://… --redis redis://…

On your own crud: a function that says what to read and write, in a module that the processes can import::

    def subject() -> Subject:
        return Subject(
            crud=user_crud,
            ids=range(1, 9),
            mark="nickname",  # an integer or text column: the harness's own, to know each write by
            create=lambda random, id, mark: UserCreate(id=id, email=f"u{id}@x.org", nickname=str(mark)),
            change=lambda random, mark: UserUpdate(nickname=str(mark)),
            read=lambda random: random.choice([Row({"id": random.randint(1, 8)}), Page(limit=10), Count()]),
        )

    report = run(Scenario(postgres="postgresql+asyncpg://…", redis="redis://…", subjects=(subject,)))
    assert report.stale == 0, report

Use a database and a Redis for tests: rows are created, changed and deleted, and a trigger is put on the table for the
time of the run. From it the harness knows the truth: each answer is compared with the rows as they were before the read
began and after it ended. A value older than the truth before is stale; so is a list, a count or a ``None`` that agrees
with neither.
"""

from .outages import Outage, ProxyThread
from .running import WorkerFailed, run
from .scenario import Report, Scenario, Stale, Weather
from .subject import Count, Page, Row, Subject

__all__ = [
    "Count",
    "Outage",
    "Page",
    "ProxyThread",
    "Report",
    "Row",
    "Scenario",
    "Stale",
    "Subject",
    "Weather",
    "WorkerFailed",
    "run",
]
