"""Runs a command that ends when its standard input does: so it is left behind by no way in which
the process that started it may end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from dllama.cli.main import main

PATIENCE_S = 8.0  # after which the command ends at once


def watch_leash() -> None:
    """Waits for the end of standard input, and ends this process then."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    threading.Thread(target=watch_leash, daemon=True, name="leash").start()
    sys.exit(main())
