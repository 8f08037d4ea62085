"""A live room to look at: `python -m demo` (or `make demo`), and the screenshots that are made of it."""
