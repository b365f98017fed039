"""A chaos harness: tasks of mixed kinds against a real system that a seeded schedule breaks, and a checker.

::

    schedule.py  pure: a seed → which fault, when, against what, how long
    system.py    the real thing: servers, gateway and workers, each behind proxies of its own
    faults.py    carries the schedule out, and mends everything afterwards
    clients.py   orders tasks over HTTP, notes every answer
    ledger.py    where the effects land: a process of its own, outside the system
    meters.py    scheduling noise and memory
    aftermath.py what is left: records, hops, dead letters, queues
    facts.py     all of that as data, which goes into a file
    view.py      pure: the facts, indexed
    checker.py   pure: facts → violations
    report.py    facts and violations → text and JSON
    run.py       one run from start to verdict; ``python -m support.chaos`` (``make chaos``)

Nothing of ours is imported: the interface is HTTP, AMQP, Redis keys as the design names them, and processes.
"""
