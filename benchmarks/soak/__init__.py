"""What must hold while things break, for as long as there is time: ``python -m benchmarks.soak --help``.

``parts.PARTS`` lists all of it; a part is a function that is given the grounds, and gives an outcome.
"""
