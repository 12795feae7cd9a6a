"""Closes the network in Python children of the tests (see `tests/support/network.py`)."""

import importlib.util
import os
from pathlib import Path

_spec = importlib.util.spec_from_file_location("portcullis_test_network", Path(__file__).parents[1] / "network.py")
assert _spec is not None
assert _spec.loader is not None
_network = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_network)
_network.Guard(os.environ.get(_network.LOG_VARIABLE)).install()
