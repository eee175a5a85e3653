"""The agent of `autoresearch demo`: it proposes edits of train.py and needs no LLM."""
