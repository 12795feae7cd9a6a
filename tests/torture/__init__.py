"""`script/torture`: nothing lost, nothing twice, nobody wrongly, under kills. See `__main__`; the comparison itself is `ledgers`."""
