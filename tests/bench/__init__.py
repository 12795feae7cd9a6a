"""The benches run and say what they promise to say; their figures are judged by people, not by tests (a loaded machine lies)."""
