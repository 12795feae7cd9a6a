"""A strict, stateful Box: one enterprise, one app with client credentials, its service account."""

from simulators.box.server import BoxSimulator

__all__ = ["BoxSimulator"]
