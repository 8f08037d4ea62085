"""How much qiyu carries, and what it costs: `python -m bench` (docs/performance.md says how to read the figures)."""
