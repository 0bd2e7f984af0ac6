"""``python -m edgeprune_benchmarks NAME``, which is also ``edgeprune bench NAME``."""

from __future__ import annotations

import sys

from edgeprune.cli import main

if __name__ == "__main__":
    # The same errors, in the same words.
    sys.argv.insert(1, "bench")
    main()
