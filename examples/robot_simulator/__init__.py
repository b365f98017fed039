"""A cleaning-robot vendor's API with failure injection: ``python -m examples.robot_simulator``.

::

    app.py        HTTP: the vendor's endpoints and /control
    world.py      tokens, robots, commands, Idempotency-Keys, all in memory and bounded
    callbacks.py  a command's end, POSTed to the URL that came with its order
    faults.py     faults to inject, set through /control or by a robot's serial number
    server.py     a threaded server for tests and the command line
"""
