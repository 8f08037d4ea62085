"""Attacks on a server of its own, on this machine only, and what other clients notice of them (`make abuse`)."""
