"""A chaos harness: tasks of mixed kinds against a real system that a seeded schedule breaks, and a checker.

::

    schedule.py  pure: a seed → which fault, when, against what, how long
    system.py    the real thing: servers, gateway and workers, each behind proxies of its own
    checkout.py  what they run from: the product, with the task types in types/
    faults.py    carries the schedule out, and mends everything afterwards
    orders.py    pure: a client's seed → which tasks it orders
    clients.py   order tasks over HTTP, one by one and in batches
    operators/   use every verb on them: cancel, retry, signal, pause, redrive, jobs, schedules
    caller.py    notes every answer
    ledger.py    where the effects land, who calls back, who gets webhooks: a process of its own, outside the system
    meters.py    scheduling noise and memory
    aftermath.py what is left: records, hops, dead letters, queues, jobs, the audit log
    facts.py     all of that as data, which goes into a file
    view.py      pure: the facts, indexed
    rules/       pure: a rule for each promise
    checker.py   pure: facts → violations
    report.py    facts and violations → text and JSON
    run.py       one run from start to verdict; ``python -m support.chaos`` (``make chaos``)

Nothing of ours is imported: the interface is HTTP, AMQP, Redis keys as the design names them, and processes. The task types in
types/ are the one exception: they run in the workers, as any engineer's do.
"""
