"""The documentation, checked: ``python -m tools.docs`` prints what is run and what is checked, and everything that is wrong.

How a block is treated follows from its language, and from a comment on the line before it, which is not rendered:

=====================================  ===========================================================================
``sh``, ``console``                    run by `tests/system/test_docs.py`; of ``console`` what follows ``$``, and its output
``python``                             begins with its path (``# tasks/doors.py``), is written there, and linted as that file
``<!-- output -->``                    what the commands of the block before print: compared
``<!-- not run: needs Docker -->``     checked without being run: syntax, names of settings, commands, options, files
``json``, ``yaml``, ``ini``            parsed
``text``                               a figure
=====================================  ===========================================================================

In commands ``019a…`` stands for the task id that was printed last, and in outputs for any; ``…`` for any text, on a line of
its own for any lines.
"""
