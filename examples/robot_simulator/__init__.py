"""A cleaning-robot vendor's API with failure injection: ``python -m examples.robot_simulator``.

::

    app.py      HTTP: the vendor's endpoints and /control
    world.py    tokens, robots, commands, idempotency keys, all in memory and bounded
    faults.py   what goes wrong next: told through /control, or by a robot's serial number
    server.py   a threaded server that can be started in a test or on the command line
"""
