"""The gazetteer: 252 countries and 34 006 cities, read and written through a coherent cache.

``python -m examples.gazetteer`` loads them, reads and writes them cold and warm, compares every answer with plain SQL,
and prints what each step cost. ``--serve`` offers the same over HTTP.
"""
