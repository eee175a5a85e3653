"""The chaos harness: the whole system as real processes, faults of every kind, and an audit.

    uv run python -m bench.chaos --jobs 10000 --faults 1000 --seed 7
    uv run python -m bench.chaos --sabotage all          # does the harness catch seeded bugs?
    uv run python -m bench.chaos recovery --repeat 3     # recovery times at production timings

    system.py      the processes under test (process.py): one Redis, orchestrators, workers
    proxy.py       what lies between them: TCP proxies that hold, cut and swallow
    stub.py        train.py for a shell: what a run does, without the price of CPython
    agents.py      those who submit, wait and train by hand; ledger.py remembers what they were told
    faults.py      faults of processes and networks, one function each; replays.py those of the
                   protocol (wire.py records what workers say); stage.py what a fault may touch
    mix.py         the share of each fault; injector.py draws and spreads them
    violations.py  the invariants by name
    observer.py    follows the event stream while the run goes on; census.py counts processes
    evidence.py    everything that is known when the system rests; audit.py judges it, with the
                   workers' journals.py, and excuses.py for what the faults explain
    rounds.py      a run of it all, from the first process to the verdict; report.py tells of it
    sabotage.py    the seeded bugs, made by bugs.py; hunt.py looks how soon each is caught
    recovery.py    how long recovery takes at production timings

docs/chaos.md explains the invariants and holds the results.
"""
