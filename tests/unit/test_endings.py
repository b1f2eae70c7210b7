"""How futures learn their end, without processes: what is counted is what the future says.

Runs in: pytest.
"""

from concurrent.futures import CancelledError
from typing import Any

import pytest

from forkpool._core.states import Task, Verdict
from forkpool._host.endings import Endings
from forkpool._host.tally import Outcome, Tally
from forkpool.future import ForkFuture


class Broken(Exception):
    pass


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_call_that_was_cancelled_as_the_pool_broke_is_counted_as_it_ended(cancelled: bool) -> None:
    # 1. the initializer raises, and the core ends what is queued; 2. the user cancels; 3. the end is carried out.
    tally = Tally(1)
    endings = Endings(lambda: False, Broken, tally)
    future: ForkFuture[Any] = ForkFuture()
    task = Task(future=future, payload=b"", name="task")
    task.verdict = Verdict.POOL_BROKEN
    if cancelled:
        assert future.cancel()
    endings.without_answer(task, None, None)
    with pytest.raises(CancelledError if cancelled else Broken):
        future.result(0)
    assert tally.ended[Outcome.CANCELLED] == cancelled
    assert tally.ended[Outcome.FAILED] == (not cancelled)
