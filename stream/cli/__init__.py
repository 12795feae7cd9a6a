"""The command line: one file a kind of work. Errors say the place and the remedy; exit codes: 0 done, 1 a finding, 2 wrong use or
refused input, 70 a fault that a supervisor should restart."""

from stream.cli.main import main

__all__ = ["main"]
