"""Signals at any moment: thousands of processes that refresh are killed or stopped, and every grant is counted.

`python -m tests.processes.signals --help` (`scripts/signals`) says how to run it.
"""
