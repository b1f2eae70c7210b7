"""The clock by which forkpool itself measures time.

Runs in: host, fork server and workers; any thread.
It is that of `time.monotonic()`, asked in another way. Libraries that hold or move the time of a program under test (freezegun)
replace `time.monotonic` in the module `time` and wherever it was imported to: then no timeout would ever end, and the start
of a call that a frozen worker writes on its page would mean nothing to the host. freezegun leaves `clock_gettime` alone, and
time-machine changes it for the wall clock only (its documentation says so).
The number of the clock is bound beforehand: 20 ns more than `time.monotonic()`, where a lambda took 40.
Tests: tests/unit/test_clock.py, tests/process/test_frozen_time.py
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

now: Callable[[], float]  # seconds
now_ns: Callable[[], int]

if hasattr(time, "clock_gettime"):
    # macOS has several monotonic clocks; Python's is the one that stands still while the machine sleeps.
    _CLOCK = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
    now = functools.partial(time.clock_gettime, _CLOCK)
    now_ns = functools.partial(time.clock_gettime_ns, _CLOCK)
else:  # Windows, which has no pool, only an error that says so
    now, now_ns = time.monotonic, time.monotonic_ns
