"""The session process of tests: a real one, but for the model it loads."""

import sys

from cluster.worker.session import main
from tests.cluster.numpy_rank import load_numpy_rank

if __name__ == "__main__":
    sys.exit(main(load_numpy_rank))
