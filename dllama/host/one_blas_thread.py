"""NumPy's library for linear algebra gets no threads of its own.

OpenBLAS starts one a core as NumPy is imported, and again looks for work with all of them for a
while after every product: time that the compute threads need, and that each process of a cluster
takes anew. Sums of vectors would also depend on the number of cores. Nothing here is large enough
to gain by them: what is, the kernels multiply.
"""

from __future__ import annotations

import os


def one_blas_thread() -> None:
    """Says so to this process, before it imports NumPy, and to those that it starts. Whoever has
    set the variable is obeyed."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
