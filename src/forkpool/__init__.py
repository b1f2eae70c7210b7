"""forkpool: a drop-in `concurrent.futures.Executor` on processes, where one crash costs one future.

Names are resolved on first use, so that `import forkpool` is cheap and a worker that imports the package stays light.
Public is what `__all__` lists; everything else may change without notice.
(PYTEST_DONT_REWRITE: since a pytest plugin lies in this package, pytest would warn that it was imported too early to be
rewritten, if a program imports it and then runs pytest; under `-W error` that would be the end.)
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing's, whose import would cost more than all the rest here

if TYPE_CHECKING:
    from ._shared.current_task import TaskInfo, current_task
    from .errors import (
        ForkPoolError,
        InitializerError,
        InternalError,
        PayloadWarning,
        PoolBrokenError,
        RemoteError,
        RemoteTraceback,
        SerializationError,
        TaskMemoryError,
        TaskTimeoutError,
        WorkerCrashedError,
    )
    from .events import Placement, PoolStatistics, SlotPlacement
    from .executor import ForkPoolExecutor, InlineExecutor
    from .future import ForkFuture

__version__ = "0.1.0"

__all__ = [
    "ForkFuture",
    "ForkPoolError",
    "ForkPoolExecutor",
    "InitializerError",
    "InlineExecutor",
    "InternalError",
    "PayloadWarning",
    "Placement",
    "PoolBrokenError",
    "PoolStatistics",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "SlotPlacement",
    "TaskInfo",
    "TaskMemoryError",
    "TaskTimeoutError",
    "WorkerCrashedError",
    "__version__",
    "current_task",
]

_HOMES = {
    "ForkPoolExecutor": "executor",
    "InlineExecutor": "executor",
    "ForkFuture": "future",
    "Placement": "events",
    "PoolStatistics": "events",
    "SlotPlacement": "events",
    "TaskInfo": "_shared.current_task",
    "current_task": "_shared.current_task",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
