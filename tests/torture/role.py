"""`python -m tests.torture.role SABOTAGE run …`: the command line of the product with one guarantee taken out."""

from __future__ import annotations

import sys

from stream.cli import main
from tests.torture.sabotage import ACTS

if __name__ == "__main__":
    ACTS[sys.argv[1]]()
    main(sys.argv[2:], prog_name="portcullis")
