"""The commands: the only place that chooses implementations."""

from dllama.cli.own_modules import own_modules_first

own_modules_first()
