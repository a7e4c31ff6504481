"""Runs dllama-root as a module."""

import sys

from dllama.cli.root import main

sys.exit(main())
