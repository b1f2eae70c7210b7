"""`python -m forkpool doctor`: what this machine gives a pool, what it lacks, and whether a pool works here.

Runs in: host; a program of its own. It tells what is, tries what forkpool needs, and measures a pool that it really makes:
nothing is concluded from versions. Everything is gathered first, as plain data, which is what `--json` prints (docs/reference/
doctor.md says what is in it); the text is made of that.
Hard part: it must say what it can where nothing works: each part that fails becomes a line.
Tests: tests/process/test_doctor.py, tests/unit/test_doctor.py
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import sysconfig
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ._shared import clock

if TYPE_CHECKING:
    import argparse

    from .executor import ForkPoolExecutor

SCHEMA = 1
_CALLS = 50  # arbitrary: the fastest of so many is free of what else the machine does
_MIB = 1 << 20
_FDS_PER_WORKER = 4  # two ends of a task pipe, an answer pipe, a pidfd; the page is mapped
_FDS_OF_POOL = 16  # arbitrary: those of the supervisor, a fork server and its successor, with some room
Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line may hold."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module to preload in the pool that is tried, to see the threads that it leaves (may be repeated)",
    )


def run(options: argparse.Namespace, others: list[str]) -> int:
    """Look, and tell. Returns the exit status: 0 when a pool works here, 1 when not."""
    if options.preload and not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # where a program finds them; the command line has taken it away
    report = examine(preload=tuple(options.preload))
    print(json.dumps(report, indent=2) if options.json else "\n".join(text_of(report)))
    return 0 if report["works"] else 1


def examine(preload: tuple[str, ...] = (), root: str = "/") -> Report:
    """Everything that is known, as plain data.

    Args:
        preload: Modules to preload in the pool that is tried.
        root: Where /proc, /sys and /dev are looked for; tests put recorded trees there. The pool is tried in any case.
    """
    import forkpool

    from ._host.kernel_means import try_all
    from ._host.limits import read_limits

    inline = os.environ.pop("FORKPOOL_INLINE", None)  # what is tried is a pool with workers
    try:
        report: Report = {
            "schema": SCHEMA,
            "forkpool": forkpool.__version__,
            "python": platform.python_version(),
            "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            "executable": sys.executable,
            "system": f"{platform.system()} {platform.release()}",
            "inline": inline == "1",
            "cpus": _cpus(root),
            "limits": asdict(read_limits(root)),
            "kernel": [asdict(one) for one in try_all(root)],
            "claims": _claims(),
            **_try_pool(preload),
        }
    finally:
        if inline is not None:
            os.environ["FORKPOOL_INLINE"] = inline
    report["works"] = report["first_result"]["error"] is None
    report["advice"] = advice(report)
    return report


def _cpus(root: str) -> Report:
    from ._host.topology import affinity_mask, parse_numbers, tightest_quota, usable_cpus

    quota, file = tightest_quota(root)
    online = os.path.join(root, "sys/devices/system/cpu/online")
    text = ""
    with contextlib.suppress(OSError), open(online, encoding="ascii") as lines:
        text = lines.read()
    return {
        "usable": usable_cpus(root),
        "online": len(parse_numbers(text)) or os.cpu_count(),
        "affinity": sorted(affinity_mask()),
        "quota": quota,
        "quota_file": file or None,
    }


def _claims() -> Report:
    """Who binds workers to which CPU, as far as it can be seen."""
    report: Report = {"file": None, "cpus": {}, "of_others": [], "error": None}
    try:
        from ._host.cpu_claims import CpuClaims
        from ._host.topology import affinity_mask

        claims = CpuClaims()
        report["file"] = claims.path
        claims.open()
        try:
            taken, foreign = claims.look(sorted(affinity_mask()))
            holders = claims.holders(taken)
        finally:
            claims.close()
    except (OSError, AttributeError, ImportError) as error:
        report["error"] = str(error)
        return report
    report["cpus"] = {str(cpu): {"pid": holders.get(cpu), "program": _program(holders.get(cpu))} for cpu in sorted(taken)}
    report["of_others"] = sorted(foreign)
    return report


def _program(pid: int | None) -> str | None:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return os.fsdecode(file.read().replace(b"\0", b" ").strip())
    return None


def _try_pool(preload: tuple[str, ...]) -> Report:
    """Make a pool as a program would, and use it."""
    report: Report = {
        "pin": {"pinned": False, "reason": None, "slots": []},
        "preload": {"modules": list(preload), "threads": None, "warnings": []},
        "first_result": {"seconds": None, "next": None, "error": None},
    }
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begun = clock.now()
            from .executor import ForkPoolExecutor

            with ForkPoolExecutor(preload=preload) as ex:
                ex.submit(abs, -1).result()
                report["first_result"]["seconds"] = clock.now() - begun
                report["first_result"]["next"] = min(_round_trip(ex) for _ in range(_CALLS))
                report["pin"] = asdict(ex.placement())
                report["preload"]["threads"] = _threads_of_server(ex)
        report["preload"]["warnings"] = [str(one.message) for one in caught if one.category is RuntimeWarning]
    except Exception as error:
        report["first_result"]["error"] = f"{type(error).__name__}: {error}"
    return report


def _round_trip(ex: ForkPoolExecutor) -> float:
    begun = clock.now()
    ex.submit(abs, -1).result()
    return clock.now() - begun


def _threads_of_server(ex: ForkPoolExecutor) -> int | None:
    """How many threads the process has that forks the workers, the main one included."""
    from . import diagnostics

    pids = [process.pid for process in diagnostics.snapshot(ex).processes if process.role == "fork server"]
    with contextlib.suppress(OSError, IndexError):
        return len(os.listdir(f"/proc/{pids[0]}/task"))
    return None


def advice(report: Report) -> list[str]:
    """What is worth changing, a sentence or two each; nothing where all is well."""
    return [*_advice_on_means(report), *_advice_on_memory(report), *_advice_on_numbers(report)]


def _advice_on_means(report: Report) -> list[str]:
    lines = [
        f"{one['name']} is missing ({one['why']}), which forkpool needs: {one['purpose']}."
        for one in report["kernel"]
        if one["needed"] and not one["present"]
    ]
    if not report["works"]:
        lines.append("Without worker processes, calls can run inline: FORKPOOL_INLINE=1 or forkpool.InlineExecutor.")
    if report["free_threaded"]:
        lines.append("This is a free-threaded build of Python, on which nothing of forkpool is tested.")
    if report["inline"]:
        lines.append("FORKPOOL_INLINE=1 is set: programs started here run their calls inline, without workers.")
    return lines


def _advice_on_memory(report: Report) -> list[str]:
    limits, lines = report["limits"], []
    if limits["oom_group"]:
        lines.append(
            f"{limits['oom_group']} is 1: when memory runs out, the kernel kills this program along with the worker. "
            "A pool ends the task that holds most when the group is nearly full, if there is time to. "
            "Cure: OOMPolicy=continue in the systemd unit (OOMPolicy=kill sets it), singleProcessOOMKill: true in the "
            "kubelet's configuration (Kubernetes 1.32), or write 0 into the file."
        )
    size = limits["shared_memory"]
    if size is None:
        lines.append("There is no /dev/shm: multiprocessing.shared_memory and multiprocessing's locks do not work.")
    elif size <= 64 * _MIB:
        lines.append(
            f"/dev/shm has {size // _MIB} MiB, which tasks that share big arrays soon fill: a process that writes more is "
            "killed by SIGBUS. In docker, --shm-size gives more."
        )
    return lines


def _advice_on_numbers(report: Report) -> list[str]:
    limits, workers, lines = report["limits"], report["cpus"]["usable"], []
    soft, hard = limits["descriptors"]["soft"], limits["descriptors"]["hard"]
    needed = (limits["descriptors_open"] or 0) + _FDS_OF_POOL + _FDS_PER_WORKER * workers
    if soft is not None and soft < needed:
        lines.append(
            f"{soft} descriptors may be open, and a pool of {workers} workers takes up to {needed} with those of the program: "
            f"`ulimit -n` raises it up to {hard if hard is not None else 'any number'}."
        )
    group = limits["processes_of_group"]
    if group["limit"] is not None and group["limit"] - (group["used"] or 0) < workers + 2:
        lines.append(
            f"{group['file']} leaves room for {max(0, group['limit'] - (group['used'] or 0))} more processes or threads, and a "
            f"pool of {workers} workers takes {workers + 3} and more: raise it (docker --pids-limit, systemd TasksMax=)."
        )
    return lines


# --- text --------------------------------------------------------------------------------------------------------------


def text_of(report: Report) -> list[str]:
    """The report for people."""
    build = " free-threaded" if report["free_threaded"] else ""
    lines = [
        f"forkpool {report['forkpool']}, Python {report['python']}{build} ({report['executable']}), {report['system']}",
        "",
    ]
    sections = (
        ("CPUs", _text_of_cpus(report["cpus"])),
        ("pin", _text_of_pin(report["pin"])),
        ("claims", _text_of_claims(report["claims"])),
        ("limits", _text_of_limits(report["limits"])),
        ("kernel", _text_of_kernel(report["kernel"])),
        ("preload", _text_of_preload(report["preload"])),
        ("a pool", _text_of_first_result(report["first_result"])),
        ("advice", report["advice"]),
    )
    for title, body in sections:
        lines += [f"{title if not at else '':8}{line}" for at, line in enumerate(body)]
    return lines


def _text_of_cpus(cpus: Report) -> list[str]:
    from .config import number_list

    mask, quota = cpus["affinity"], cpus["quota"]
    where = f"the affinity mask has {len(mask)} (CPU {number_list(mask)}) of {cpus['online']}" if mask else "no affinity mask"
    limit = "no cgroup limits their time" if quota is None else f"{cpus['quota_file']} grants the time of {quota:g}"
    return [f"{cpus['usable']} usable: {where}; {limit}"]


def _text_of_pin(pin: Report) -> list[str]:
    from .config import number_list

    if pin["reason"] is None:
        return ['unknown what pin="auto" would do']
    bound = [one for one in pin["slots"] if one["cpus"] is not None]
    slots = [f"  slot {one['slot']}: CPU {number_list(one['cpus'])}, {one['reason']}" for one in bound]
    return [f"{pin['reason']}{': workers are bound' if pin['pinned'] else ''}", *slots]


def _text_of_claims(claims: Report) -> list[str]:
    if claims["error"] is not None:
        return [f"cannot be seen: {claims['error']}"]
    lines = [f"CPU {cpu}: pid {one['pid']}, {one['program']}" for cpu, one in claims["cpus"].items()]
    lines += [f"CPU {cpu}: another user's pool" for cpu in claims["of_others"]]
    return lines or ["no other pool has claimed a CPU"]


def _text_of_limits(limits: Report) -> list[str]:
    group, pids = limits["memory_of_group"], limits["processes_of_group"]
    return [
        f"descriptors: {_pair(limits['descriptors'])}, {_or_unknown(limits['descriptors_open'])} open",
        f"processes of this user: {_pair(limits['processes'])}",
        f"processes of the cgroup: {_of_group(pids, '')}",
        f"locked memory: {_pair(limits['locked_memory'], _MIB, ' MiB')}",
        f"memory of the cgroup: {_of_group(group, ' MiB', _MIB)}",
        f"memory.oom.group: {'1 in ' + limits['oom_group'] if limits['oom_group'] else 'not set'}",
        f"/dev/shm: {_amount(limits['shared_memory'], _MIB, ' MiB', 'missing')}, "
        f"{_amount(limits['shared_memory_free'], _MIB, ' MiB', '0 MiB')} free",
    ]


def _text_of_kernel(means: list[Report]) -> list[str]:
    width = max(len(one["name"]) for one in means)
    return [
        f"{one['name']:{width}}  {'yes' if one['present'] else 'NO: ' if one['needed'] else 'no: '}"
        + ("" if one["present"] else f"{one['why']}; {one['purpose']}")
        for one in means
    ]


def _text_of_preload(preload: Report) -> list[str]:
    if not preload["modules"]:
        return ["nothing (--preload MODULE tries one)"]
    if preload["threads"] is None:
        return [f"{', '.join(preload['modules'])}: unknown"]
    count = preload["threads"] - 1
    threads = f"{', '.join(preload['modules'])}: {count or 'no'} thread{'s' * (count != 1)} left in the fork server"
    return [f"{threads}{', safe to fork' if count and not preload['warnings'] else ''}", *preload["warnings"]]


def _text_of_first_result(first: Report) -> list[str]:
    if first["error"] is not None:
        return [f"does not work here: {first['error']}"]
    return [f"works: first result after {first['seconds']:.3f} s, the next ones after {first['next'] * 1e6:.0f} µs at best"]


def _pair(limit: Report, unit: int = 1, name: str = "") -> str:
    soft, hard = (_amount(limit[kind], unit, name, "unlimited") for kind in ("soft", "hard"))
    return soft if soft == hard else f"{soft} (at most {hard})"


def _of_group(group: Report, name: str, unit: int = 1) -> str:
    if group["limit"] is None:
        return "unlimited"
    return f"{_amount(group['limit'], unit, name, '')}, {_amount(group['used'], unit, name, 'unknown')} used ({group['file']})"


def _amount(number: int | None, unit: int, name: str, otherwise: str) -> str:
    return otherwise if number is None else f"{number // unit}{name}"


def _or_unknown(number: int | None) -> str:
    return "unknown how many" if number is None else str(number)
