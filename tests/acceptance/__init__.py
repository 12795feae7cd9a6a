"""The product as its user runs it: commands as processes, a real broker where the promise needs one, simulated vendors."""
