"""One packet code, one small file."""
