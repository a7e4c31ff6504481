"""Arrays in, arrays out: the numba kernels everything else stands on.

Knows blocks, rows, heads and pages; nothing of models, files or sockets. Importing the package, or
the list of types in `kernels.formats`, does not import numba.
"""
