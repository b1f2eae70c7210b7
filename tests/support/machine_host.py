"""A PoolMachine with a host that is a few numbers: facts go in by hand, what comes out is read as tuples.

Runs in: pytest.
"""

from typing import Any

from forkpool._core.machine import PoolMachine
from forkpool._core.states import GroupMemory, RepeatableTask, Task, Verb, Verdict, Worker
from forkpool.config import TaskOptions
from tests.support.machine_invariants import check_invariants

GRACE_S = 5.0
SHORT_S = 0.00001


class Host:
    """A host without processes. `acted` names each action as a test reads it: ("SEND", 1, "a")."""

    def __init__(self, max_workers: int = 1, max_tasks_per_child: int | None = None) -> None:
        self.now = 100.0
        self.started: dict[str, float] = {}  # when a worker took a task
        self.cancelled: set[str] = set()  # by the user, while they waited
        self.put_back: list[str] = []
        self.machine = PoolMachine(
            max_workers,
            task_limit=lambda: max_tasks_per_child,
            grace_s=GRACE_S,
            try_start=lambda task: task.name not in self.cancelled,
            put_back=lambda task: self.put_back.append(task.name),
            repeat=lambda task, worker: self.repeat(task, worker),
            started_at=lambda worker: self.started.get(worker.tasks[0].name),
        )
        self.repeated: list[tuple[str, int]] = []  # task and worker
        self.killed: set[str] = set()  # by the user; the machine has not heard of it
        self.tasks: dict[str, Task] = {}
        self._seq = 0

    def submit(self, *names: str, payload: bytes = b"", **options: Any) -> None:
        for name in names:
            make = RepeatableTask if options.get("retries") else Task
            task = self.tasks[name] = make(future=object(), payload=payload, name=name, options=TaskOptions(**options))
            self.machine.on_submit(task)

    def repeat(self, task: Task, worker: Worker) -> bool:
        if task.name in self.killed:
            return False
        self.repeated.append((task.name, worker.generation))
        return True

    def fail(self, generation: int, *error: str) -> list[tuple[object, ...]]:
        """The worker answered that its task raised this."""
        worker = self.worker(generation)
        task = self.machine.on_answer(worker, self.now, 1.0)
        if not self.machine.on_failure(task, worker, error):
            return [("FAILED", task.name), *self.step()]
        return self.step()

    def step(self) -> list[tuple[object, ...]]:
        """Decide, and tell what is to be done."""
        self.machine.dispatch(self.now)
        return self.acted()

    def acted(self) -> list[tuple[object, ...]]:
        """What is to be done so far, without another decision."""
        actions, self.machine.actions = self.machine.actions, []
        check_invariants(self.machine)
        return [self._described(*action) for action in actions]

    def _described(self, verb: Verb, worker: Worker | None, task: Task | None) -> tuple[object, ...]:
        generation = None if worker is None else worker.generation
        match verb:
            case Verb.SEND | Verb.SEND_WHOLE:
                assert task is not None
                self._seq += 1
                task.seq = self._seq
                return verb.name, generation, task.name
            case Verb.END:
                assert task is not None
                assert task.verdict is not None
                return "END", generation, task.name, task.verdict.name
            case Verb.FINISHED:
                return ("FINISHED",)
            case _:
                return verb.name, generation

    def worker(self, generation: int) -> Worker:
        return self.machine.workers[generation]

    def ready(self, *generations: int) -> list[tuple[object, ...]]:
        for generation in generations:
            self.machine.on_ready(self.worker(generation), self.now)
        return self.step()

    def answer(self, generation: int, seconds: float = 1.0) -> list[tuple[object, ...]]:
        self.machine.on_answer(self.worker(generation), self.now, seconds)
        return self.step()

    def lacking(self, generation: int) -> list[tuple[object, ...]]:
        """The worker has not got all that its first task needs."""
        self.machine.on_lacking(self.worker(generation), self.now)
        return self.step()

    def gone(self, generation: int, *untaken: str) -> list[tuple[object, ...]]:
        worker = self.worker(generation)
        self.machine.on_recalled(worker, [self.tasks[name].seq for name in untaken], self.now, alive=False)
        self.machine.on_gone(worker, self.now)
        return self.step()

    def recalled(self, generation: int, *untaken: str) -> list[tuple[object, ...]]:
        seqs = [self.tasks[name].seq for name in untaken]
        self.machine.on_recalled(self.worker(generation), seqs, self.now, alive=True)
        return self.step()

    def memory(self, generation: int, private: int | None) -> list[tuple[object, ...]]:
        """What was read of the worker's memory."""
        self.machine.on_memory(self.worker(generation), self.now, private)
        return self.step()

    def group_memory(self, group: GroupMemory | None, **private: int | None) -> list[tuple[object, ...]]:
        """What was read of the control groups, and what each worker holds by the name of its first task, or as `idle2`."""
        named = lambda worker: worker.tasks[0].name if worker.tasks else f"idle{worker.generation}"  # noqa: E731
        self.machine.on_group_memory(self.now, group, lambda worker: private[named(worker)])
        return self.step()

    def lost(self, generation: int, *seqs: int, alive: bool = True) -> list[tuple[object, ...]]:
        self.machine.on_lost(self.worker(generation), list(seqs), self.now, alive=alive)
        return self.step()

    def sent(self, generation: int) -> None:
        self.machine.on_sent(self.worker(generation), self.now)

    def kill(self, name: str) -> list[tuple[object, ...]]:
        return self.kill_task(self.tasks[name])

    def kill_task(self, task: Task) -> list[tuple[object, ...]]:
        self.machine.on_kill(task)
        return self.step()

    def cancel(self, *names: str) -> list[tuple[object, ...]]:
        """As the user does it, and the news has come."""
        self.cancelled.update(names)
        for name in names:
            self.machine.on_cancel(self.tasks[name])
        return self.step()

    def later(self, seconds: float) -> list[tuple[object, ...]]:
        self.now += seconds
        self.machine.on_time(self.now)
        return self.step()

    def close(self, *, cancel_queued: bool = False) -> list[tuple[object, ...]]:
        self.machine.on_close(cancel_queued=cancel_queued)
        return self.step()

    def abort(self) -> list[tuple[object, ...]]:
        self.machine.on_abort(self.now)
        return self.step()

    def kill_all(self) -> list[tuple[object, ...]]:
        self.machine.on_kill_all(Verdict.POOL_KILLED)
        return self.step()

    def terminate(self) -> list[tuple[object, ...]]:
        self.machine.on_terminate_all(self.now)
        return self.step()

    def next_time(self) -> float | None:
        """In seconds from now."""
        at = self.machine.next_time()
        return None if at is None else round(at - self.now, 6)

    # --- states to start from

    def busy(self, *names: str, **options: Any) -> "Host":
        """Workers 1, 2 ... hold one of these tasks each, and have just got it."""
        self.submit(*names, **options)
        self.step()
        self.ready(*range(1, len(names) + 1))
        for generation in range(1, len(names) + 1):
            self.sent(generation)
        return self

    def idle(self) -> "Host":
        """Worker 1 is idle, and knows tasks called "x..." as short."""
        self.submit("x")
        self.step()
        self.ready(1)
        self.answer(1, SHORT_S)
        return self

    def ahead(self, count: int = 3) -> "Host":
        """Worker 1 has `count` short tasks, called "x" all; the test tells them by their seqs."""
        self.idle()
        for _ in range(count):
            self.submit("x")
        self.step()
        return self


def fail_to_spawn(host: Host) -> list[tuple[object, ...]]:
    """The newest worker could not be started."""
    host.machine.on_spawn_failed(host.worker(max(host.machine.workers)), host.now)
    return host.step()


def die_at_start(host: Host) -> list[tuple[object, ...]]:
    return host.gone(max(host.machine.workers))
