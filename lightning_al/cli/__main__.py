"""`python -m lightning_al.cli`: the same as `lightning-al`."""

import sys

from lightning_al.cli import main

if __name__ == "__main__":
    sys.exit(main())
