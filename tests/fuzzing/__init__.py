"""Fuzzing with coverage: `make fuzz-coverage` feeds parsers whatever leads to a branch that nothing led to before."""
