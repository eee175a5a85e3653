"""`autoresearch mirror`: decided runs, told to another program after the fact.

A process of its own that only reads: whatever happens to it, or to what it mirrors to, the search
does not notice. `loop` follows the orchestrator, `place` remembers how far it came, `mlflow`
writes.
"""
