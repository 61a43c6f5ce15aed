"""fastrdb beside the libraries that people would use instead, each in an environment of its own: ``python -m benchmarks.peers``."""
