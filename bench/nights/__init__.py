"""Simulated nights with known truth: what a keep rule is worth. See docs/keep-rules.md."""
