"""The commands: the only place that chooses implementations."""

from dllama.cli.own_modules import own_modules_first
from dllama.host.one_blas_thread import one_blas_thread

own_modules_first()
one_blas_thread()
