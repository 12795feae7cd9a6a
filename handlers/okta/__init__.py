"""Okta: the source of truth (directory), the log, and a target of its own (suspend, end sessions)."""
