"""What is read of the host, and the command that starts an interpreter like it.

Runs in: pytest; flags can only be seen in interpreters of their own, started with them.
"""

import json
import logging
import os
import pickle
import pickletools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from forkpool._host import snapshot

DESCRIBE = (
    "import json, sys\n"
    "facts = [list(sys.flags), sys.warnoptions, sorted(map(str, sys._xoptions.items())), sys.stdout.write_through]\n"
)
TWICE = (
    DESCRIBE
    + "print(json.dumps(facts), flush=True)\n"
    + "sys.path.insert(0, {src!r})\n"
    + "import subprocess\n"
    + "from forkpool._host.snapshot import interpreter_command\n"
    + "subprocess.run([*interpreter_command(), '-c', {describe!r} + 'print(json.dumps(facts))'], check=True)\n"
)


def both_interpreters(*options: str) -> list[list[object]]:
    """The facts of an interpreter with these options, and of the one that it would start."""
    src = str(Path(snapshot.__file__).parents[2])
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    found = subprocess.run(
        [sys.executable, *options, "-c", TWICE.format(src=src, describe=DESCRIBE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # -v and the like talk there
        env=environ,
        check=True,
        text=True,
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "",
        "-OO -B",
        "-E -s -q",
        "-I -S",
        "-P -u",
        "-b",
        "-bb -Werror::UserWarning",
        "-X dev -Wignore::ImportWarning",
        "-X int_max_str_digits=5000 -X pycache_prefix=/dev/null -X of_our_own",
        "-X utf8=1 -X frozen_modules=off -X tracemalloc=3",
    ],
)
def test_another_interpreter_has_the_same_options(options: str) -> None:
    ours, theirs = both_interpreters(*options.split())
    assert theirs == ours


@pytest.mark.slow
def test_an_interactive_host_does_not_make_an_interactive_server() -> None:
    src = str(Path(snapshot.__file__).parents[2])
    program = (
        f"import sys; sys.path.insert(0, {src!r})\n"
        "from forkpool._host.snapshot import interpreter_command; print(interpreter_command())\n"
    )
    found = subprocess.run([sys.executable, "-i", "-c", program], input="", capture_output=True, text=True, check=True)
    assert "-i" not in found.stdout


def test_options_that_the_program_took_back_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    assert not any(option.startswith("-W") for option in snapshot.interpreter_command())


@pytest.mark.parametrize(("executable", "message"), [("", "is empty"), (None, "is empty"), ("/no/python", "not exist")])
def test_without_an_interpreter_nothing_starts(executable: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(RuntimeError, match=message):
        snapshot.interpreter_command()


def test_a_program_that_embeds_python_is_not_taken_for_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "uwsgi"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(server))
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(RuntimeError, match=r"uwsgi\) is not a Python interpreter.*set_executable"):
        snapshot.interpreter_command()


def test_a_frozen_program_is_not_taken_for_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    with pytest.raises(RuntimeError, match="frozen program"):
        snapshot.interpreter_command()


def test_what_multiprocessing_was_told_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import spawn

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/application")
    monkeypatch.setattr(spawn, "_python_exe", os.fsencode(os.path.realpath(sys.prefix + "/bin/python")))
    assert snapshot.interpreter_command()[0] == os.path.realpath(sys.prefix + "/bin/python")


def test_an_interpreter_behind_a_link_of_any_name_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "our-tool"
    link.symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(link))
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
    assert snapshot.interpreter_command()[0] == str(link)


def test_the_snapshot_needs_no_import_to_be_unpickled() -> None:
    data = pickle.dumps(snapshot.take_snapshot({"A": "1"}))
    names = [opcode.name for opcode, _, _ in pickletools.genops(data)]
    assert not {"GLOBAL", "STACK_GLOBAL", "REDUCE"} & set(names)


def test_the_given_variables_win() -> None:
    found = snapshot.environment({"HOME": "/elsewhere", "NEW": "ü"})
    assert (found["HOME"], found["NEW"], found["PATH"]) == ("/elsewhere", "ü", os.environ["PATH"])
    assert os.environ["HOME"] != "/elsewhere"


def test_a_deleted_working_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert snapshot.take_snapshot(None)["cwd"] is None
    finally:
        os.chdir(tmp_path)


def test_the_umask_is_read_without_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        assert snapshot.take_snapshot(None)["umask"] == 0o027
    finally:
        monkeypatch.undo()
        os.umask(before)


def test_import_path_is_absolute_and_has_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib/../lib", Path("/a/path"), b"/bytes", "/b"])
    assert snapshot.take_snapshot(None)["sys_path"][:3] == [str(tmp_path), f"{tmp_path}/lib", "/b"]


def test_filters_travel_as_text() -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings("error", "so (it) goes", DeprecationWarning, r"a\.b", 7)
        (found,) = snapshot.take_snapshot(None)["warnings"]
    flags = int(re.compile("x", re.IGNORECASE).flags)
    category = ("builtins", "DeprecationWarning")
    assert found == ("error", ("so (it) goes", flags), category, (r"a\.b", int(re.compile("").flags)), 7)


def test_filters_that_no_worker_could_name_stay_here() -> None:
    class Local(UserWarning):
        pass

    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error", Local)
        assert snapshot.take_snapshot(None)["warnings"] == []


@pytest.mark.parametrize("argv", [None, 7, ["program", None, "-x"]])
def test_arguments_that_are_none(argv: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that embeds Python sets `sys.argv` as it likes, or not."""
    monkeypatch.setattr(sys, "argv", argv)
    assert snapshot.take_snapshot(None)["argv"] == (["program", "-x"] if isinstance(argv, list) else [])
    monkeypatch.delattr(sys, "argv")
    assert snapshot.take_snapshot(None)["argv"] == []


def test_levels_and_the_handler_for_stderr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(logging.Formatter("{message}", style="{"))
    to_file = logging.FileHandler(tmp_path / "log", delay=True)
    monkeypatch.setattr(root, "handlers", [to_file, to_stderr])
    monkeypatch.setattr(logging.getLogger("tests.of.snapshot"), "level", 17)
    found = snapshot.take_snapshot(None)["logging"]
    assert found["handlers"] == [{"stream": "stderr", "level": 0, "format": ("{message}", None, "{")}]
    assert found["loggers"]["tests.of.snapshot"] == (17, False)


def test_a_handler_that_raises_when_it_is_asked_for_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first `submit` raised that."""

    class Odd(logging.Handler):
        @property
        def stream(self) -> None:
            raise OSError("not yet")

    monkeypatch.setattr(logging.getLogger(), "handlers", [Odd(), logging.StreamHandler()])
    assert [one["stream"] for one in snapshot.take_snapshot(None)["logging"]["handlers"]] == ["stderr"]


@pytest.mark.slow
def test_logging_is_not_imported_for_the_snapshot() -> None:
    src = str(Path(snapshot.__file__).parents[2])
    program = (
        f"import sys; sys.path.insert(0, {src!r})\n"
        "from forkpool._host.snapshot import take_snapshot\n"
        "found = take_snapshot(None)\n"
        "assert found['logging'] is None and 'logging' not in sys.modules, found\n"
        "from multiprocessing import current_process\n"
        "assert found['multiprocessing']['authkey'] == bytes(current_process().authkey)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
