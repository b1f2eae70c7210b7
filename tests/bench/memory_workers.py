"""Workers for bench_memory to measure: forkpool's, the standard library's, bare forks; numpy is imported before the fork.

Run by bench_memory: `memory_workers.py KIND WORKERS INSIDE GO`; INSIDE and GO are the FIFOs of its gate. In a process of its
own, which imports nothing that is not used: what the benchmark imports would be in the workers of the standard library too.
In a first round all workers enter the gate at once, idle; in a second they have used numpy. No worker may enter the second
before all have left the first: it would take a place that is another's.
Used means: a matrix of 64 x 64 is filled, multiplied, summed, and random numbers are drawn.
"""

import os
import sys

RECORD_BYTES = 16  # as in tests.support.gate, whose import would be memory of each worker


def enter(inside_path: str, go_path: str) -> None:
    """Say that we are inside, and wait to be let go."""
    inside, go = os.open(inside_path, os.O_WRONLY), os.open(go_path, os.O_RDONLY)
    os.write(inside, b"%*d" % (RECORD_BYTES, os.getpid()))
    os.read(go, 1)
    os.close(inside)
    os.close(go)


def use_numpy(inside_path: str, go_path: str) -> None:
    import numpy

    matrix = numpy.arange(4096.0).reshape(64, 64)
    numpy.random.random(10)
    (matrix @ matrix).sum()
    enter(inside_path, go_path)


def forkpool(workers: int, *paths: str) -> None:
    from forkpool import ForkPoolExecutor

    with ForkPoolExecutor(workers, preload=("numpy",)) as ex:
        for task in (enter, use_numpy):
            for future in [ex.submit(task, *paths) for _ in range(workers)]:
                future.result()


def standard(workers: int, *paths: str) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("forkserver")
    context.set_forkserver_preload(["numpy", "numpy.random"])
    with ProcessPoolExecutor(workers, mp_context=context) as ex:
        for task in (enter, use_numpy):
            for future in [ex.submit(task, *paths) for _ in range(workers)]:
                future.result()


def bare(workers: int, *paths: str) -> None:
    """What no pool can go below: no channel, no set-up, the code is there already."""
    import gc

    import numpy.random  # noqa: F401  # numpy imports it when it is first touched

    gc.collect()
    gc.freeze()
    for task in (enter, use_numpy):
        for _ in range(workers):
            if not os.fork():
                task(*paths)
                os._exit(0)
        for _ in range(workers):
            os.wait()


KINDS = {"forkpool": forkpool, "standard": standard, "bare": bare}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
