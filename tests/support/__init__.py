"""Means for tests against real processes: gates, facts about processes, leak check, alarm, scripts.

Runs in: the pytest process; gate.py and tasks.py also run inside workers, so they import little.
No module here sleeps: a test waits for a fact (a byte in a FIFO, a pidfd), the alarm bounds the wait.
"""
