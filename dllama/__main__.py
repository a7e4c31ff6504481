"""`python -m dllama`: the same as the command `dllama`."""

import sys

from dllama.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
