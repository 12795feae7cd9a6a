"""How fast it is: benches that anybody can run, each with one JSON object as its last line."""
