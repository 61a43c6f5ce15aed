"""fastrdb beside hand-written code, on PostgreSQL and Redis, in one run: ``python -m benchmarks`` (README.md)."""
