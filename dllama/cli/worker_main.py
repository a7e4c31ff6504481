"""Runs dllama-worker as a module."""

import sys

from dllama.cli.worker import main

sys.exit(main())
