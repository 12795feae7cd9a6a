"""Tests mirror the folders they speak about; what they share stands in `tests.support`."""
