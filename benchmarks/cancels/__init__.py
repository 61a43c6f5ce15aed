"""Requests that are cancelled at random points, by the thousand: what they leave behind is looked for everywhere.

``await cancel_requests(database_url, cache_url, Plan(cancellations=10_000))`` gives a report with a verdict; it is the
whole of ``python -m benchmarks.cancels``, and of the test that does the same with fewer.
"""

from .report import Plan, Report
from .run import cancel_requests

__all__ = ["Plan", "Report", "cancel_requests"]
