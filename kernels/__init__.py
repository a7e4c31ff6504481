"""Arrays in, arrays out: the numba kernels everything else stands on.

Knows blocks, rows, heads and pages; nothing of models, files or sockets. numba is imported
where a kernel has to be compiled: where all are on the disk already, it is not.
"""
