"""One module per peer: the same few operations on the same table, each in the way its documentation shows.

These modules run in the peers' own environments, beside nothing of this checkout but each other; only ``ours`` has the
checkout on its path. Python is started with ``-P`` and this folder's parent on the path, so that ``import cashews``
finds the library and not the module of that name here. What the methods of a peer give is said once, in ``rows.Peer``.
"""
