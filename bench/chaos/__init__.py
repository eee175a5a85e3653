"""The chaos harness: the whole system as real processes, faults of every kind, and an audit.

    uv run python -m bench.chaos --jobs 10000 --faults 1000 --seed 7
    uv run python -m bench.chaos --network       # real TCP and TLS, latency, loss, partitions
    uv run python -m bench.chaos --sabotage all          # does the harness catch seeded bugs?
    uv run python -m bench.chaos recovery --repeat 3     # recovery times at production timings

    system.py      the processes under test (process.py): one Redis, orchestrators, workers, and the
                   proxies between them (bench/harness/proxy.py)
    network.py     --network: each process on a host of its own, joined by switch.py; partitions.py
                   cuts the ways between them
    stub.py        train.py for a shell, because a CPython for each short job would cost too much
    agents.py      they submit, wait and train by hand; promises.py keeps what they were told
    faults.py      faults of processes and networks; replays.py those of the protocol (recorder.py
                   keeps what workers sent); targets.py what a fault may hit
    injector.py    draws faults by their shares and spreads them
    violations.py  the invariants by name
    observer.py    follows the event stream during the run; process_checks.py looks at processes
    audit.py       judges the records at rest, with the oracle (tests/oracle), the workers'
                   journals.py, and expected_losses.py for what the faults explain
    race.py        what must hold where the keep rule is `race`
    rounds.py      one run, from the first process to the audit; report.py prints it
    sabotage.py    the seeded bugs, made by bugs.py; hunt.py measures how soon each is caught
    recovery.py    how long recovery takes at production timings

docs/chaos.md explains the invariants and holds the results.
"""
