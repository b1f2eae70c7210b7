"""Random numbers, open files, standard input: what must not be shared between host and workers.

Runs in: pytest and workers.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import forkpool
from forkpool import ForkPoolExecutor
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def draw() -> float:
    return random.random()


def draw_with_numpy() -> float:
    import numpy

    return float(numpy.random.random())


@pytest.mark.parametrize("draw_one", [draw, draw_with_numpy])
def test_each_worker_draws_other_numbers(draw_one: Callable[[], float]) -> None:
    with ForkPoolExecutor(2, max_tasks_per_child=1) as ex:
        drawn = [future.result() for future in [ex.submit(draw_one) for _ in range(6)]]
    assert len(set(drawn)) == 6


def test_random_numbers_of_an_imported_module_differ_too() -> None:
    """`random` and numpy are in the fork server before the fork, as after a preload."""
    program = """
import os, sys
sys.path.insert(0, {src!r})
from forkpool._host.snapshot import take_snapshot
from forkpool._child import inherit
snapshot = take_snapshot(None)
inherit.apply_in_server(snapshot)
import random, numpy
random.seed(1); numpy.random.seed(1)
identity = inherit.prepare_worker(snapshot)
for slot in range(3):
    identity.before_fork()
    if not os.fork():
        identity.take(slot)
        print(random.random(), numpy.random.random(), flush=True)
        os._exit(0)
    os.wait()
"""
    src = str(Path(forkpool.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-Wignore::DeprecationWarning", "-c", program.format(src=src)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(set(found)) == 6


def test_names_imported_from_random_draw_other_numbers_too(start: Start) -> None:
    """`from random import random` binds a method of a hidden generator: its copies all had the host's state."""
    program = start("""
        import random
        from random import randint, seed
        from numpy.random import rand
        from forkpool import ForkPoolExecutor
        class Dice:
            roll = random.randint
        def draw(pick=random.randint):
            return randint(1, 10**9), Dice.roll(1, 10**9), pick(1, 10**9), rand()
        def seeded():
            seed(1)
            return random.random() == random.Random(1).random()
        with ForkPoolExecutor(2, max_tasks_per_child=1) as ex:
            drawn = [ex.submit(draw).result() for _ in range(3)]
            mark("different", len({number for numbers in drawn for number in numbers}))
            mark("seeded", ex.submit(seeded).result())
            mark("called", len({ex.submit(random.random).result() for _ in range(3)}))
        """).finish()
    assert program.value("different") == "12"
    assert program.value("seeded") == "True"
    assert program.value("called") == "3"


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def test_no_open_file_or_socket_of_the_host_is_inherited(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        ours = {target for fd, target in descriptors().items() if int(fd) > 2}
        with ForkPoolExecutor(1) as ex:
            theirs = ex.submit(descriptors).result()
    assert not ours & {target for fd, target in theirs.items() if int(fd) > 2}
    assert str(tmp_path / "secret") not in theirs.values()


def test_a_worker_holds_no_descriptor_of_another(gate: Gate) -> None:
    """A pipe to a worker that another keeps open would hide its end from the host."""
    with ForkPoolExecutor(3) as ex:
        entered = [ex.submit(_enter_and_look, gate) for _ in range(3)]
        for _ in range(3):
            gate.wait_inside()
        gate.open_for_all()
        seen = [future.result() for future in entered]
    pipes = [{target for target in one.values() if target.startswith("pipe:")} for one in seen]
    # Shared by all: stdout and stderr, the host's lifeline, the relay to the resource tracker.
    shared = pipes[0] & pipes[1] & pipes[2]
    for index, mine in enumerate(pipes):
        for other in pipes[index + 1 :]:
            assert mine & other == shared
        assert mine - shared


def _enter_and_look(gate: Gate) -> dict[str, str]:
    gate.enter()
    return descriptors()


def ask() -> str:
    return input("who is there? ")


def debug() -> None:
    import pdb

    pdb.Pdb().set_trace()
    ask()


def read_stdin() -> bytes:
    return os.read(0, 10)


def test_standard_input_is_at_its_end() -> None:
    with ForkPoolExecutor(1) as ex:
        assert isinstance(ex.submit(ask).exception(), EOFError)
        assert ex.submit(read_stdin).result() == b""
        assert ex.submit(os.readlink, "/proc/self/fd/0").result() == os.devnull
        assert ex.submit(debug).exception() is not None


def test_standard_input_of_a_host_that_closed_its_own(start: Start) -> None:
    program = start("""
        os.close(0)
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("input", type(ex.submit(lambda: input()).exception()).__name__)
            mark("zero", ex.submit(lambda: os.readlink("/proc/self/fd/0")).result())
        """).finish()
    assert program.value("input") == "EOFError"
    assert program.value("zero") == "/dev/null"


def test_a_program_read_from_stdin_keeps_its_rest(start: Start) -> None:
    """The worker must not read the program that the host has yet to read."""
    program = start(
        """
        from forkpool import ForkPoolExecutor
        ex = ForkPoolExecutor(1)
        mark("read", ex.submit(lambda: __import__("sys").stdin.read()).result() == "")
        ex.shutdown()
        mark("rest")
        """,
        "stdin",
        python=("-i",),
    ).finish()
    assert program.value("read") == "True"
    assert program.all("rest") == [""]
