"""Code in the user's thread may be interrupted at every step: by signal handlers that raise, by garbage collection, by tracing.

Row "a signal handler, __del__ or weakref callback raises or calls the pool in the middle of any pool call".
What was accepted ends exactly once; the pool is usable afterwards.
"""

import _thread
import errno
import gc
import linecache
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._host import pool as pool_module
from forkpool._host import supervisor as supervisor_module
from forkpool._host.supervisor import Supervisor
from tests.support import tasks
from tests.support.gate import Gate, Marks
from tests.support.script import Script

Start = Callable[..., Script]


class Interrupted(BaseException):
    """What the tracer and the handlers raise: no `except Exception` may swallow it."""


STORM = """
import forkpool, signal, itertools
from concurrent.futures import wait
from tests.support import tasks
from tests.support.gate import Marks

class Ring(BaseException): ...
armed = False
def ring(*_):
    if armed:
        raise Ring
signal.signal(signal.SIGALRM, ring)
count, marks = int(sys.argv[1]), Marks(sys.argv[2])
rings, futures = 0, {}
with forkpool.ForkPoolExecutor(2) as ex:
    # What the first submit of either kind imports takes longer than the timer lets it; and an import that a handler interrupts
    # may raise SystemError instead on CPython 3.11.2 (`import no_such_module` alone does, 2 of 20,000; 3.11.7 does not).
    assert ex.submit(tasks.add, 1, 1).result() == 2
    assert ex.submit(tasks.leave_mark, marks, "first").result() == "first"
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for number in range(count):
        try:
            armed = True
            future = ex.submit(tasks.add, number, 1) if number % 100 else ex.submit(tasks.leave_mark, marks, str(number))
            armed = False
            futures[number] = future
        except Ring:
            armed = False
            rings += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    mark("not-done", len(wait(futures.values()).not_done))
    wrong = [n for n, f in futures.items() if f.result() != (n + 1 if n % 100 else str(n))]
    mark("wrong", wrong)
    mark("after", ex.submit(tasks.add, 1, 1).result())
mark("rings", rings > 0)
mark("accepted", len(futures) > count // 2)
words = marks.words()
mark("twice", len(words) - len(set(words)))
mark("lost", {str(n) for n in futures if n % 100 == 0} - set(words) or "none")
"""


@pytest.mark.parametrize(
    "count", [10_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.alarm(180)])], ids=["10^4", "10^5"]
)
def test_a_timer_that_raises_during_many_submits(start: Start, marks: Marks, count: int) -> None:
    script = start(STORM, args=[str(count), marks.path]).finish()
    assert script.value("not-done") == "0"
    assert script.value("wrong") == "[]"
    assert script.value("after") == "2"
    assert script.value("rings") == "True"
    assert script.value("accepted") == "True"
    assert script.value("twice") == "0"
    assert script.value("lost") == "none"


def in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


FIRST_LINE_OF_EXIT = 2  # before, it is as if __exit__ had not been called


class LineCounter:
    """A trace function that raises at the nth line of our package that the call reaches.

    Leaving a `with` block is reported as its first line once more, before `__exit__` is called. No signal is handled at
    that point (CPython looks for them after calls and at jumps back), so nothing can raise there but a tracer: not counted.
    """

    def __init__(self, raise_at: int, kind: type[BaseException], latest: str | None) -> None:
        self.left = raise_at
        self.kind = kind
        self.latest = latest  # raise at a line with this text at the latest
        self.where = ""
        self.entered: set[tuple[FrameType, int]] = set()

    def leaves_a_block(self, frame: FrameType) -> bool:
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if not source.startswith("with "):
            return False
        here = (frame, frame.f_lineno)
        left = here in self.entered
        self.entered.add(here)
        return left

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if "/forkpool/" not in frame.f_code.co_filename or (event == "call" and in_finalizer(frame)):
            return None  # what is raised in a finalizer goes nowhere: it cannot be asked to survive that
        if event == "line" and not self.leaves_a_block(frame):
            self.left -= 1
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if self.left == 0 or (self.latest is not None and self.latest in text):
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}: {text.strip()}"
                sys.settrace(None)
                raise self.kind(self.where)
        return self


def interrupt(
    call: Callable[[], Any], line: int, kind: type[BaseException] = Interrupted, latest: str | None = None
) -> tuple[Any, str]:
    """The call's value and where it was interrupted ("" if it has fewer lines)."""
    tracer = LineCounter(line, kind, latest)
    gc.disable()  # what is raised in a weakref callback that runs meanwhile goes nowhere
    try:
        return traced(call, tracer), tracer.where
    finally:
        gc.enable()


def traced(call: Callable[[], Any], tracer: LineCounter) -> Any:
    """The call's value, None if it was interrupted.

    It runs in a generator, which has a record of its own of the exception that is being handled. A tracer that raises at the
    `return` in an `except` block leaves that set (seen with CPython 3.11 to 3.13), and whatever another test raises and prints
    would have it as context.
    """

    def run() -> Iterator[Any]:
        value = None
        sys.settrace(tracer)
        try:
            value = call()
        except tracer.kind:
            pass
        finally:
            sys.settrace(None)
        yield value

    value = next(run())
    assert sys.exc_info()[1] is None
    return value


def every_line(call: Callable[[], Any], limit: int = 3000) -> Any:
    """Call it again and again, interrupted at its first, second ... line, until a call comes through."""
    for line in range(1, limit):
        value, where = interrupt(call, line)
        if not where:
            return line, value
    raise AssertionError("no end of lines")


@pytest.mark.slow
@pytest.mark.alarm(180)
def test_submit_interrupted_at_every_line(marks: Marks) -> None:
    numbers = iter(range(10_000))

    with ForkPoolExecutor(2) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2

        def submit() -> Future[Any]:
            return ex.submit(tasks.leave_mark, marks, str(next(numbers)))

        lines, future = every_line(submit)
        assert lines > 10
        assert future.result() == str(lines - 1)
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
    words = marks.words()
    assert len(words) == len(set(words))


@pytest.mark.slow
@pytest.mark.alarm(180)
def test_first_submit_interrupted_at_every_line(marks: Marks) -> None:
    """The one that starts threads and processes. A pool each time: usable afterwards, closes, leaves nothing."""
    for line in range(1, 3000):
        ex = ForkPoolExecutor(1)
        _, where = interrupt(lambda: ex.submit(tasks.leave_mark, marks, f"{line}"), line)  # noqa: B023
        assert ex.submit(tasks.add, line, 1).result() == line + 1, where
        ex.shutdown()
        if not where:
            break
    words = marks.words()
    assert len(words) == len(set(words))
    assert str(line) in words


def ask_too_early(future: Future[Any]) -> None:
    with pytest.raises(TimeoutError):
        future.result(timeout=0)


@pytest.mark.parametrize("what", ["cancel", "kill", "result", "done", "add_done_callback"])
def test_methods_of_a_future_interrupted_at_every_line(what: str, gate: Gate) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "cancel": lambda future: future.cancel(),
        "kill": lambda future: future.kill(),
        "result": ask_too_early,
        "done": lambda future: future.done(),
        "add_done_callback": lambda future: future.add_done_callback(repr),
    }
    with ForkPoolExecutor(1) as ex:
        blocker = ex.submit(tasks.enter, gate, "blocker")
        gate.wait_inside()
        futures = {}
        for line in range(1, 500):
            future = futures[line] = ex.submit(tasks.add, line, 1)
            _, where = interrupt(lambda: calls[what](future), line)  # noqa: B023
            if not where:
                break
            # either as if before or as if after: a second call finds it in one of the two states
            calls[what](future)
        gate.open_for_all()
        assert blocker.result() == "blocker"
        assert wait(futures.values(), timeout=30).not_done == set()
        if what in ("cancel", "kill"):
            assert all(future.cancelled() for future in futures.values())
        else:
            assert {line: future.result() for line, future in futures.items()} == {line: line + 1 for line in futures}
        assert ex.submit(tasks.add, 1, 1).result() == 2


class Small:
    """One of many in a result whose unpickling takes a while."""

    def __init__(self, number: int) -> None:
        self.number = number


def many_small(count: int) -> list[Small]:
    return [Small(number) for number in range(count)]


def fail_with_small(count: int) -> None:
    raise ValueError(many_small(count))


def ask_for_small(future: Future[Any]) -> tuple[bool, int]:
    """Whether it failed, and how many came."""
    try:
        value, failed = future.result(), False
    except ValueError as error:
        value, failed = error.args[0], True
    return failed, value if isinstance(value, int) else sum(one.number == number for number, one in enumerate(value))


ANSWERS: dict[str, Callable[[int], Any]] = {"plain": tasks.identity, "objects": many_small, "exception": fail_with_small}


@pytest.mark.slow
@pytest.mark.alarm(180)
@pytest.mark.parametrize("kind", [Interrupted, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_asking_for_an_answer_interrupted_at_every_line(answer: str, method: str, kind: type[BaseException]) -> None:
    """Also in the middle of unpickling it: who asks next gets it, in this thread and in another."""
    expected = (answer == "exception", 1000)
    with ForkPoolExecutor(1) as ex:
        for line in range(1, 500):
            future = ex.submit(ANSWERS[answer], 1000)
            assert wait([future]).not_done == set()
            ask = partial(ask_for_small, future) if method == "result" else future.exception
            _, where = interrupt(ask, line, kind)
            assert ask_for_small(future) == expected, where
            assert (future.exception() is not None) == expected[0], where
            if not where:
                break
        assert line > 3


ALARMS_WHILE_UNPICKLING = """
import forkpool, signal
from concurrent.futures import wait
from tests.process.test_interruptions import ask_for_small, fail_with_small, many_small

class Ring(Exception): ...
def ring(*_):
    raise Ring
signal.signal(signal.SIGALRM, ring)
rings = wrong = 0
with forkpool.ForkPoolExecutor(1) as ex:
    for number in range(1, 17):
        future = ex.submit((many_small, fail_with_small)[number % 2], 20_000)
        wait([future])
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001 * number)
            ask_for_small(future)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Ring:
            rings += 1
        wrong += ask_for_small(future) != (number % 2 == 1, 20_000)
mark("rings", rings > 0)
mark("wrong", wrong)
"""


@pytest.mark.slow
def test_a_timer_that_raises_while_an_answer_is_unpickled(start: Start) -> None:
    script = start(ALARMS_WHILE_UNPICKLING).finish()
    assert script.value("rings") == "True"
    assert script.value("wrong") == "0"


lacking: list[BaseException] = []


def unpickle_if_nothing_lacks(depth: int) -> str:
    if depth:
        return unpickle_if_nothing_lacks(depth - 1)
    if lacking:
        raise lacking.pop()
    return "value"


class NeedsRoom:
    """Unpickled by a function that goes down some frames."""

    def __reduce__(self) -> Any:
        return unpickle_if_nothing_lacks, (50,)


def ask_from(depth: int, future: Future[Any]) -> Any:
    return future.result() if depth == 0 else ask_from(depth - 1, future)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "no descriptor"), RecursionError()], ids=repr)
def test_what_lacks_while_an_answer_is_unpickled(error: BaseException) -> None:
    with ForkPoolExecutor(1) as ex:
        futures = [ex.submit(NeedsRoom), ex.submit(NeedsRoom)]
        wait(futures)
        lacking.append(error)
        with pytest.raises(type(error)):
            futures[0].result()
        lacking.append(error)
        assert futures[1].exception() is error
        for future in futures:
            assert future.result() == "value"
            assert future.exception() is None


def test_a_caller_deep_in_a_recursion_takes_nothing_from_who_asks_next() -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(NeedsRoom)
        wait([future])
        vain = 0
        for depth in range(sys.getrecursionlimit(), 0, -5):
            try:
                assert ask_from(depth, future) == "value"
            except RecursionError:
                vain += 1
                continue
            break
        assert vain > 50 // 5, "it was unpickled in part"
        assert future.result() == "value"


def test_shutdown_interrupted_at_every_line() -> None:
    for line in range(1, 500):
        ex = ForkPoolExecutor(1)
        future = ex.submit(tasks.add, 1, 1)
        _, where = interrupt(ex.shutdown, line)
        ex.shutdown()
        assert future.result() == 2, where
        if not where:
            return


@pytest.mark.slow
@pytest.mark.alarm(180)
@pytest.mark.parametrize("what", ["statistics", "placement", "recycle_workers", "restart_workers"])
def test_methods_of_the_pool_interrupted_at_every_line(what: str) -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2

        def call() -> Any:
            getattr(ex, what)()
            return True

        for line in range(1, 3000):
            done, where = interrupt(call, line)
            assert ex.submit(tasks.add, line, 1).result() == line + 1, where
            if done:
                break
        assert line > 2
        counts = ex.statistics()
        assert (counts.done, counts.submitted) == (line + 1,) * 2
        assert ex.placement().slots[0].slot == 0


@pytest.mark.slow
@pytest.mark.alarm(180)
@pytest.mark.parametrize("what", ["terminate_workers", "kill_workers"])
def test_stopping_all_workers_interrupted_at_every_line(what: str, gate: Gate) -> None:
    """As if it had not been called, or had: never a pool that takes no calls and goes on with those that it has."""
    for line in range(1, 500):
        ex = ForkPoolExecutor(1)
        running, queued = ex.submit(tasks.enter, gate, "ran"), ex.submit(tasks.add, 1, 1)
        gate.wait_inside()
        _, where = interrupt(getattr(ex, what), line)
        ex.statistics()  # the supervisor has heard all that was said before
        try:
            more = ex.submit(tasks.add, 1, 2)
        except RuntimeError:
            assert type(running.exception()) is WorkerCrashedError, where
            wait([queued])
            assert queued.cancelled(), where
        else:
            assert not running.done(), where
            gate.release()
            assert [running.result(), queued.result(), more.result()] == ["ran", 2, 3]
        ex.shutdown()
        if not where:
            assert running.exception() is not None
            return
    raise AssertionError("no end of lines")


@pytest.mark.slow
@pytest.mark.alarm(80)
@pytest.mark.parametrize("kind", [None, KeyboardInterrupt], ids=["at its end", "by Ctrl-C"])
def test_ctrl_c_at_every_line_of_leaving_the_block(kind: type[BaseException] | None, gate: Gate) -> None:
    """Wherever it comes, the block is left when the pool is closed; a second Ctrl-C ends a grace of minutes."""
    latest = "done.wait()" if kind else None  # without another Ctrl-C that is a wait of 1000 seconds
    for line in range(FIRST_LINE_OF_EXIT, 500):
        ex = ForkPoolExecutor(1, grace_period=1000 if kind else 0.1)
        running, queued = ex.submit(tasks.enter, gate), ex.submit(tasks.add, 1, 1)
        gate.wait_inside()
        if kind is None:
            gate.release()
        _, where = interrupt(lambda: ex.__exit__(kind, None, None), line, KeyboardInterrupt, latest)  # noqa: B023
        left = {future for future in (running, queued) if not future.done()}
        if left:
            ex.kill_workers()
        assert not left, where
        assert ex._pool.intake.done.is_set(), where
        if not where or (latest is not None and latest in where):
            return
    raise AssertionError("no end of lines")


def test_map_interrupted_at_every_line() -> None:
    with ForkPoolExecutor(2) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        _, values = every_line(lambda: list(ex.map(tasks.add, range(3), range(3))))
        assert values == [0, 2, 4]
        assert ex.submit(tasks.add, 1, 1).result() == 2


ACTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "submit": lambda ex, future: ex.submit(tasks.add, 1, 1),
    "cancel": lambda ex, future: future.cancel(),
    "kill": lambda ex, future: future.kill(),
    "done": lambda ex, future: future.done(),
    "callback": lambda ex, future: future.add_done_callback(repr),
}


class CallsWhenDropped:
    """Calls something when the collector finds it: also in the middle of a pool call, in the same thread."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do
        self.me = self  # a cycle: only the collector ends it

    def __del__(self) -> None:
        self.do()


@pytest.mark.parametrize("action", ACTIONS)
def test_finalizers_that_call_the_pool_in_the_middle_of_submit(action: str, gate: Gate) -> None:
    previous = gc.get_threshold()
    done: list[int] = []
    with ForkPoolExecutor(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()

        def do() -> None:
            ACTIONS[action](ex, stuck)
            done.append(1)

        gc.set_threshold(1)
        try:
            futures = []
            for number in range(500):
                CallsWhenDropped(do)
                futures.append(ex.submit(tasks.add, number, 1))
        finally:
            gc.set_threshold(*previous)
        gc.collect()
        gate.open_for_all()
        assert [future.result() for future in futures] == list(range(1, 501))
        wait([stuck])
    assert len(done) == 500


@pytest.mark.parametrize("action", ACTIONS)
def test_weakref_callbacks_that_call_the_pool(action: str, gate: Gate) -> None:
    done: list[int] = []
    with ForkPoolExecutor(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        futures, references = [], []

        def do(_: Any) -> None:
            ACTIONS[action](ex, stuck)
            done.append(1)

        for number in range(300):
            argument = {number}
            holder = CallsNothing(argument)
            references.append(weakref.ref(holder, do))
            futures.append(ex.submit(tasks.identity, holder))
            del holder
        gate.open_for_all()
        assert [future.result().value for future in futures] == [{number} for number in range(300)]
        wait([stuck])
    assert len(done) == 300


class CallsNothing:
    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.mark.parametrize("action", [*ACTIONS, "shutdown"])
def test_signal_handlers_that_call_the_pool_in_the_middle_of_submit(action: str, start: Start) -> None:
    script = start(f"""
import forkpool, signal
from tests.support import tasks
ex = forkpool.ForkPoolExecutor(2)
actions = {{
    "submit": lambda: more.append(ex.submit(tasks.add, 1, 1)),
    "cancel": lambda: [f.cancel() for f in futures[-3:]],
    "kill": lambda: [f.kill() for f in futures[-3:]],
    "done": lambda: [f.done() for f in futures],
    "callback": lambda: [f.add_done_callback(repr) for f in futures[-3:]],
    "shutdown": lambda: ex.shutdown(wait=False),
}}
more, futures, rings = [], [], 0
def ring(*_):
    global rings
    rings += 1
    actions[{action!r}]()
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
refused = 0
number = 0
while rings < 30 or number < 2:  # all of them may come while the first call waits for the pool to start
    try:
        futures.append(ex.submit(tasks.add, number, 1))
    except RuntimeError:
        refused += 1
    number += 1
signal.setitimer(signal.ITIMER_REAL, 0)
ends = [f.cancelled() or f.result() > 0 for f in futures + more]
mark("all-ended", all(ends))
mark("refused", refused > 0)
if {action!r} != "shutdown":
    mark("after", ex.submit(tasks.add, 1, 1).result())
ex.shutdown()
""").finish()
    assert script.value("all-ended") == "True"
    assert script.value("refused") == str(action == "shutdown")
    assert script.all("after") == ([] if action == "shutdown" else ["2"])


class SubmitsWhilePickled:
    """As an argument: calls the pool while submit pickles it."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do

    def __reduce__(self) -> Any:
        self.do()
        return int, ("7",)


def test_submit_inside_submit() -> None:
    inner: list[Future[int]] = []
    with ForkPoolExecutor(1) as ex:
        argument = SubmitsWhilePickled(lambda: inner.append(ex.submit(tasks.add, 1, 1)))
        assert ex.submit(tasks.identity, argument).result() == 7
        assert inner
        assert [future.result() for future in inner] == [2] * len(inner)


def test_shutdown_inside_submit() -> None:
    ex = ForkPoolExecutor(1)
    argument = SubmitsWhilePickled(lambda: ex.shutdown(wait=False))
    try:
        future = ex.submit(tasks.identity, argument)
    except RuntimeError:
        pass
    else:
        assert future.result() == 7
    ex.shutdown()


def test_threads_that_switch_as_often_as_they_can() -> None:
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ForkPoolExecutor(2) as ex:
            sums: list[int] = []

            def use(start: int) -> None:
                futures = [ex.submit(tasks.add, start, n) for n in range(200)]
                cancelled = [future for future in futures[::7] if future.cancel()]
                sums.append(
                    sum(f.result() - start for f in futures if f not in cancelled) + sum(futures.index(f) for f in cancelled)
                )

            threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sums == [19_900] * 6
    finally:
        sys.setswitchinterval(previous)


def test_a_thread_with_the_number_of_one_that_has_ended_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the number of a thread out again, often to the very next one: it was refused to wait."""
    started: list[threading.Thread] = []
    serve, is_late, go_on = Supervisor._serve, threading.Event(), threading.Event()

    def start(boot: Callable[..., None], args: tuple[Any, ...]) -> None:
        started.append(threading.Thread(target=boot, args=args))
        started[0].start()

    def serve_late(supervisor: Supervisor, is_proper: bool) -> None:
        started.append(threading.current_thread())
        is_late.set()
        go_on.wait()
        serve(supervisor, is_proper)

    def is_refused(thread: threading.Thread) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(supervisor_module, "_thread", SimpleNamespace(get_ident=lambda: thread.ident))
            return pool.is_supervisor_thread()

    threads = SimpleNamespace(start_new_thread=start, allocate_lock=_thread.allocate_lock)
    monkeypatch.setattr(pool_module, "_thread", threads)
    monkeypatch.setattr(Supervisor, "_serve", serve_late)
    with ForkPoolExecutor(1) as ex:
        submits = threading.Thread(target=ex.submit, args=(abs, -1))
        submits.start()
        is_late.wait()
        try:
            pool = ex._pool
            started[0].join()
            assert not is_refused(started[0])
        finally:
            go_on.set()
        submits.join()
        assert is_refused(started[1])
    assert not any(map(is_refused, started))


def test_signal_while_waiting_in_shutdown(start: Start, gate: Gate) -> None:
    script = start(
        """
import forkpool, signal
from tests.support import tasks
from tests.support.gate import GateInTask
class Ring(BaseException): ...
def ring(*_):
    raise Ring
signal.signal(signal.SIGUSR1, ring)
ex = forkpool.ForkPoolExecutor(1)
future = ex.submit(tasks.enter, GateInTask(sys.argv[1], sys.argv[2]), "ran")
try:
    mark("ready")
    ex.shutdown()
except Ring:
    mark("rang")
mark("result", future.result())
ex.shutdown()
""",
        args=[gate.inside_path, gate.go_path],
    )
    gate.wait_inside()
    script.wait_mark("ready")
    script.send(signal.SIGUSR1)
    script.wait_mark("rang")
    gate.open_for_all()
    script.finish()
    assert script.value("result") == "ran"
