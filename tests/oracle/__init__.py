"""What the store must hold, in plain Python: the second opinion of the tests.

    search.py    one tag: verdicts, best, near misses, streak, strategy, counted from its runs
    race.py      a tag that keeps by `race`: what the rule says is given, the counting is not
    model.py     every request that changes something: queue, leases, pool, operator actions
    keyspace.py  what all of that must leave in Redis, and what is there
    replay.py    a model of a system at rest, made by deciding its runs once more

It is written from the specification and from the glossary in `orchestrator/store/keys.py`, and it
imports nothing of the product, so that a wrong rule there is not also its own. `tests/store/
test_model.py` compares after every request, `bench/chaos` once the faults are over.
"""
