"""``python -m edgeprune`` is the command ``edgeprune``."""

from edgeprune.cli import main

if __name__ == "__main__":
    main()
