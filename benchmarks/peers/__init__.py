"""fastrdb beside what people would use instead, each in its own environment: ``python -m benchmarks.peers``."""
