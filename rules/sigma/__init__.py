"""Sigma on plain dicts: pySigma reads the rules, we evaluate them. Rejected: pySigma's backends (they write queries for
other systems), evaluators of others (the best one passes 21 of 29 semantic cases), and walking pySigma's trees per event (slow)."""
