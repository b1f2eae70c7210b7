"""Which CPUs the slots of a pool get, on machines of every shape.

Runs in: pytest; pure. tests/unit/test_topology.py has how such machines are read, tests/process/test_pinning.py real workers.
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkpool._core.placement import (
    THREAD_VARIABLES,
    Cpu,
    Machine,
    choose_sets,
    free_placement,
    placement_of,
    thread_variables,
    why_auto_stays_free,
    why_not_enough,
)
from forkpool.config import number_list


def build(*cores: tuple[int, ...], nodes: int = 1, start: int = 0) -> Machine:
    """A machine of these cores, dealt to the nodes in equal parts."""
    node = {number: at * nodes // len(cores) for at, core in enumerate(cores) for number in core}
    cpus = [Cpu(number, core, node[number]) for core in cores for number in core]
    return Machine(tuple(sorted(cpus, key=lambda cpu: cpu.number)), start=start)


def plain(count: int, **more: int) -> Machine:
    return build(*((number,) for number in range(count)), **more)


def threaded(cores: int, **more: int) -> Machine:
    """Hyper-threads come after all cores, as on most machines."""
    return build(*((number, number + cores) for number in range(cores)), **more)


ONE, TWO, FOUR = plain(1), plain(2), plain(4)
EIGHT = threaded(4)
NUMA_64 = threaded(32, nodes=2)
NUMA_256 = threaded(128, nodes=8)
ODD = build((3, 17), (40,), (5, 41))


def test_one_cpu_for_one_worker() -> None:
    assert choose_sets(1, 1, ONE) == ((0,),)
    assert choose_sets(2, 1, ONE) is None


def test_two_pools_of_two_on_four_cpus_share_none_and_a_third_gets_none() -> None:
    first = choose_sets(2, 1, FOUR)
    assert first == ((0,), (1,))
    assert choose_sets(2, 1, FOUR, taken={0, 1}) == ((2,), (3,))
    assert choose_sets(2, 1, FOUR, taken={0, 1, 2, 3}) is None
    assert choose_sets(2, 1, FOUR, taken={0, 1, 2}) is None


def test_cores_before_hyper_threads() -> None:
    assert choose_sets(4, 1, EIGHT) == ((0,), (1,), (2,), (3,))
    assert choose_sets(6, 1, EIGHT) == ((0,), (1,), (2,), (3,), (4,), (5,))
    neighbours = build((0, 1), (2, 3), (4, 5), (6, 7))
    assert choose_sets(4, 1, neighbours) == ((0,), (2,), (4,), (6,))


def test_a_core_that_another_pool_uses_comes_after_the_free_ones() -> None:
    assert choose_sets(2, 1, EIGHT, taken={0, 5}) == ((2,), (3,))
    assert choose_sets(3, 1, EIGHT, taken={0, 5}) == ((2,), (3,), (1,))


def test_a_sibling_outside_of_our_mask_may_be_claimed_as_well() -> None:
    machine = Machine((Cpu(0, (0, 2)), Cpu(1, (1, 3))))
    assert choose_sets(1, 1, machine, taken={2}) == ((1,),)


def test_the_tightest_node_that_suffices() -> None:
    assert choose_sets(16, 1, NUMA_64) == tuple((number,) for number in range(16))
    assert choose_sets(16, 1, NUMA_64, taken={3}) == tuple((number,) for number in range(16, 32))
    assert choose_sets(2, 1, NUMA_64, taken={*range(10)}) == ((10,), (11,))


def test_cores_of_another_node_before_hyper_threads_of_this_one() -> None:
    sets = choose_sets(20, 1, NUMA_64)
    assert sets is not None
    assert all(cpu < 32 for (cpu,) in sets)
    assert Counter(cpu < 16 for (cpu,) in sets) == {True: 16, False: 4}


def test_256_cpus() -> None:
    sets = choose_sets(256, 1, NUMA_256)
    assert sets is not None
    assert sets[:128] == tuple((number,) for number in range(128))
    assert choose_sets(257, 1, NUMA_256) is None


def test_odd_numbers() -> None:
    assert choose_sets(3, 1, ODD) == ((3,), (5,), (40,))
    assert choose_sets(5, 1, ODD) == ((3,), (5,), (40,), (17,), (41,))


def test_sets_of_several_cpus_are_cores_of_one_node() -> None:
    assert choose_sets(2, 2, EIGHT) == ((0, 1), (2, 3))
    assert choose_sets(2, 8, NUMA_64) == (tuple(range(8)), tuple(range(8, 16)))
    assert choose_sets(2, 12, NUMA_64) == (tuple(range(12)), tuple(range(16, 28)))


def test_sets_that_need_hyper_threads_are_made_of_whole_cores() -> None:
    assert choose_sets(4, 2, EIGHT) == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert choose_sets(2, 4, EIGHT) == ((0, 1, 4, 5), (2, 3, 6, 7))


def test_a_set_that_no_node_can_hold_spans_several() -> None:
    machine = plain(6, nodes=2)
    assert choose_sets(1, 4, machine) == ((0, 1, 2, 3),)
    assert choose_sets(2, 3, machine) == ((0, 1, 2), (3, 4, 5))
    assert choose_sets(3, 2, machine) == ((0, 1), (2, 5), (3, 4))


def test_another_users_claims_are_the_last_choice() -> None:
    assert choose_sets(2, 1, FOUR, foreign={0, 1}) == ((2,), (3,))
    assert choose_sets(3, 1, FOUR, foreign={0, 1}) == ((2,), (3,), (0,))
    assert choose_sets(1, 1, EIGHT, foreign={0, 1, 2}) == ((3,),)
    assert choose_sets(2, 1, EIGHT, foreign={0, 1, 2}) == ((3,), (4,))


def test_a_container_begins_elsewhere() -> None:
    assert choose_sets(2, 1, plain(4, start=4026532567)) == ((3,), (0,))
    assert choose_sets(4, 1, plain(4, start=2)) == ((2,), (3,), (0,), (1,))


# --- properties ----------------------------------------------------------------------------------------


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    threads, count = draw(st.integers(1, 4)), draw(st.integers(1, 24))
    numbers = draw(st.lists(st.integers(0, 300), min_size=threads * count, max_size=threads * count, unique=True))
    cores = [tuple(sorted(numbers[at : at + threads])) for at in range(0, len(numbers), threads)]
    whole = build(*cores, nodes=draw(st.integers(1, 4)), start=draw(st.integers(0, 50)))
    mask = draw(st.sets(st.sampled_from(whole.cpus), min_size=1))
    return Machine(tuple(cpu for cpu in whole.cpus if cpu in mask), start=whole.start)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, int, Machine, frozenset[int], frozenset[int]]:
    machine = draw(machines())
    some = st.frozensets(st.sampled_from([cpu.number for cpu in machine.cpus]))
    return draw(st.integers(1, 12)), draw(st.integers(1, 5)), machine, draw(some), draw(some)


@given(requests())
def test_sets_are_disjoint_and_of_the_wanted_size_or_there_is_not_enough(
    request: tuple[int, int, Machine, frozenset[int], frozenset[int]],
) -> None:
    slots, width, machine, taken, foreign = request
    free = {cpu.number for cpu in machine.cpus} - taken
    sets = choose_sets(slots, width, machine, taken, foreign)
    assert (sets is None) == (len(free) < slots * width)
    if sets is None:
        assert str(slots * width) in why_not_enough(slots, width, machine, taken)
        return
    chosen = [cpu for one in sets for cpu in one]
    assert len(sets) == slots
    assert all(len(one) == width and list(one) == sorted(one) for one in sets)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= free
    assert choose_sets(slots, width, machine, taken, foreign) == sets
    assert str(placement_of(sets, "why", machine, taken, foreign)).count("\n") == slots


@given(requests())
def test_no_core_is_shared_while_free_cores_are_left(
    request: tuple[int, int, Machine, frozenset[int], frozenset[int]],
) -> None:
    slots, _, machine, taken, foreign = request
    sets = choose_sets(slots, 1, machine, taken, foreign)
    if sets is None:
        return
    core = {cpu.number: cpu.siblings for cpu in machine.cpus}
    busy = {*taken, *foreign}
    idle = {siblings for siblings in core.values() if busy.isdisjoint(siblings)}
    own = [core[cpu] for (cpu,) in sets if core[cpu] in idle]
    if slots <= len(idle):
        assert len(set(own)) == slots
        rooms = Counter(node for node, _ in {(cpu.node, cpu.siblings) for cpu in machine.cpus if cpu.siblings in idle})
        if max(rooms.values()) >= slots:
            node = {cpu.number: cpu.node for cpu in machine.cpus}
            assert len({node[cpu] for (cpu,) in sets}) == 1
    else:
        assert set(own) == idle


@given(requests())
def test_a_set_spans_nodes_only_where_it_must(request: tuple[int, int, Machine, frozenset[int], frozenset[int]]) -> None:
    slots, width, machine, taken, foreign = request
    sets = choose_sets(slots, width, machine, taken, foreign)
    if sets is None:
        return
    node = {cpu.number: cpu.node for cpu in machine.cpus}
    room = sum(count // width for count in Counter(cpu.node for cpu in machine.cpus if cpu.number not in taken).values())
    spanning = [one for one in sets if len({node[cpu] for cpu in one}) > 1]
    assert len(spanning) == max(0, slots - room)


# --- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "width", "machine", "words"),
    [
        (2, 1, Machine(()), "this system cannot bind a process to CPUs"),
        (2, 1, Machine(FOUR.cpus, nested=True), "this process is itself a worker of a pool, which has chosen already"),
        (2, 1, Machine(FOUR.cpus, quota=1.5), "a cgroup grants the time of 1.5 CPUs on any of 4"),
        (5, 1, FOUR, "5 workers need 5 CPUs, and this process may use 4"),
        (1, 8, FOUR, "1 worker with 8 threads each needs 8 CPUs, and this process may use 4"),
        (4, 1, FOUR, "4 workers would take every CPU that this process may use, itself included (pin=True binds)"),
        (2, 2, FOUR, "2 workers with 2 threads each would take every CPU"),
        (1, 1, ONE, "1 worker would take every CPU"),
        (3, 1, FOUR, None),
        (1, 2, FOUR, None),
        (3, 1, Machine(FOUR.cpus, quota=4.0), None),
    ],
)
def test_why_auto_stays_free(slots: int, width: int, machine: Machine, words: str | None) -> None:
    found = why_auto_stays_free(slots, width, machine)
    assert found is None if words is None else words in (found or "")


def test_why_not_enough() -> None:
    assert why_not_enough(3, 1, FOUR, {0, 1}) == "3 workers need 3 CPUs, and of CPU 0-3 other pools have claimed 0-1"
    assert why_not_enough(1, 1, ONE, {0}) == "1 worker needs 1 CPU, and of CPU 0 other pools have claimed 0"
    assert why_not_enough(5, 1, FOUR, ()) == "5 workers need 5 CPUs, and this process may use 4 (CPU 0-3)"


def test_a_placement_reads_well() -> None:
    sets = choose_sets(3, 1, EIGHT, taken={1, 2, 6, 7}, foreign={3})
    assert sets is not None
    assert str(placement_of(sets, "pin='auto'", EIGHT, {1, 2, 6, 7}, {3})).splitlines() == [
        "pin='auto'",
        "  slot 0: CPU 0, sharing a core with CPU 4: no free core was left",
        "  slot 1: CPU 4, sharing a core with CPU 0: no free core was left",
        "  slot 2: CPU 5, sharing a core with CPU 1: no free core was left",
    ]
    assert "no other worker shares its cores" in str(placement_of(((0, 4),), "why", EIGHT, (), ()))
    assert "another user's pool" in str(placement_of(((3,),), "why", EIGHT, (), {3}))


def test_a_free_placement_reads_well() -> None:
    placement = free_placement(2, "pin='auto'", "CPU 0 is claimed")
    assert str(placement) == "pin='auto': not pinned, because CPU 0 is claimed"
    assert [slot.cpus for slot in placement.slots] == [None, None]
    assert str(placement.slots[1]) == "slot 1: not pinned, CPU 0 is claimed"


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((0,), "0"), ((0, 1), "0-1"), ((3, 1, 2, 9, 2), "1-3,9"), ((0, 2, 4), "0,2,4")]
)
def test_numbers_are_written_as_the_kernel_does(numbers: tuple[int, ...], text: str) -> None:
    assert number_list(numbers) == text


# --- threads -------------------------------------------------------------------------------------------


def test_all_variables_are_set() -> None:
    assert thread_variables(3, {}) == dict.fromkeys(THREAD_VARIABLES, "3")


def test_what_is_kept_stays() -> None:
    assert "MKL_NUM_THREADS" not in thread_variables(1, {"MKL_NUM_THREADS": "4", "HOME": "/"})


def test_libraries_that_follow_openmp_follow_what_is_kept() -> None:
    found = thread_variables(1, {"OMP_NUM_THREADS": "4"})
    assert found == {"NUMBA_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}
