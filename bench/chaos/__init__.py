"""The chaos harness: the whole system as real processes, faults of every kind, and an audit.

    uv run python -m bench.chaos --jobs 10000 --faults 1000 --seed 7
    uv run python -m bench.chaos --sabotage all          # does the harness catch seeded bugs?
    uv run python -m bench.chaos recovery --repeat 3     # recovery times at production timings

    system.py      the processes under test: one Redis, orchestrators, workers
    proxy.py       what lies between them: TCP proxies that hold, cut and swallow
    stub.py        train.py for a shell: what a run does, without the price of CPython
    agents.py      those who submit, wait, train by hand, and remember what they were told
    faults.py      every kind of fault, one function each; injector.py draws and spreads them
    observer.py    follows the event stream and the processes while the run goes on
    evidence.py    everything that is known when the system rests; audit.py judges it
    rounds.py      a run of it all, from the first process to the verdict
    sabotage.py    the seeded bugs; hunt.py looks how soon each is caught
    recovery.py    how long recovery takes at production timings

docs/chaos.md explains the invariants and holds the results.
"""
