"""Give each slot of a pool a GPU, a port and a database file of its own.

The initializer takes what belongs to its worker's slot. It finds the slot in the environment variable FORKPOOL_SLOT, which
is set before it runs and before the worker imports anything of this program; a task is also told by `current_task()`.
No two tasks that run at the same time have the same slot, so none waits for another's GPU, port or file.
(A pool with `max_tasks_per_child` would open the port with `reuse_port=True`: see docs/how-to/one-per-slot.md.)
One item crashes its worker. The worker that replaces it takes over the slot, and with it the same GPU, port and file.
No GPU is needed to run this: the example only sets the variable that makes CUDA programs see one.
Tests: tests/docs/test_examples.py
"""

import os
import signal
import socket
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from forkpool import ForkPoolExecutor, WorkerCrashedError, current_task

GPUS = ["0", "1"]  # one worker for each
ITEMS = 24
DEFECT = 7  # the item that kills its worker


@dataclass(frozen=True)
class Place:
    """What a worker has to itself."""

    gpu: str
    server: socket.socket
    database: sqlite3.Connection


place: Place  # set by the initializer: a global of the worker


def take_place(folder: Path, ports: list[int]) -> None:
    """The initializer: runs once in each worker, before its first task."""
    global place
    slot = int(os.environ["FORKPOOL_SLOT"])
    os.environ["CUDA_VISIBLE_DEVICES"] = GPUS[slot]  # before torch, cupy or jax is imported in the tasks
    server = socket.create_server(("127.0.0.1", ports[slot]))  # raises if somebody else still has it
    database = sqlite3.connect(folder / f"slot-{slot}.sqlite")
    with database:
        database.execute(
            "create table if not exists results (item integer, value integer, gpu text, port integer, pid integer)"
        )
    place = Place(GPUS[slot], server, database)


def compute(item: int) -> int:
    """The task. It writes to its slot's file, which no other worker has open."""
    if item == DEFECT:
        os.kill(os.getpid(), signal.SIGKILL)
    value = sum(n * n % 7 for n in range(100_000 + item))
    row = (item, value, os.environ["CUDA_VISIBLE_DEVICES"], place.server.getsockname()[1], os.getpid())
    with place.database:
        place.database.execute("insert into results values (?, ?, ?, ?, ?)", row)
    task = current_task()
    assert task is not None  # it is None only outside a task
    return task.slot


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment; a real program would have `[8000 + slot ...]`."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def show(folder: Path) -> None:
    for path in sorted(folder.glob("slot-*.sqlite")):
        database = sqlite3.connect(path)
        (rows, gpus, ports, workers) = database.execute(
            "select count(*), group_concat(distinct gpu), group_concat(distinct port), count(distinct pid) from results"
        ).fetchone()
        database.close()
        print(f"{path.name}: {rows} results, GPU {gpus}, port {ports}, written by {workers} worker(s) one after the other")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initargs = (folder, free_ports(len(GPUS)))
        with ForkPoolExecutor(max_workers=len(GPUS), initializer=take_place, initargs=initargs) as ex:
            futures = {item: ex.submit(compute, item) for item in range(ITEMS)}
            for item, future in futures.items():
                if isinstance(error := future.exception(), WorkerCrashedError):
                    print(f"item {item} crashed the worker on slot {error.slot}")
        show(folder)


if __name__ == "__main__":
    main()
