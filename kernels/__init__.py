"""Arrays in, arrays out: the numba kernels everything else stands on.

Knows blocks, rows, heads and pages; nothing of models, files or sockets.
"""

from kernels.cache import use_shared_cache

use_shared_cache()  # before any kernel is defined: numba asks for the folder at decoration
