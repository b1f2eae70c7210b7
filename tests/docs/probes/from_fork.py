"""Try the rows of docs/coming-from/fork.md: what workers see of a change in the host, without and with the remedy."""

import abc
import atexit
import collections
import contextlib
import copyreg
import datetime
import decimal
import fractions
import io
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

import freezegun
import numpy
from claims import claim, error_of, try_all

from forkpool import ForkPoolExecutor, SerializationError

FORK = multiprocessing.get_context("fork")
table = {"size": 1}


def seen_by(ask, **options):
    with ForkPoolExecutor(1, **options) as pool:
        return pool.submit(ask).result()


def seen_by_fork(ask):
    global asked
    asked = ask  # the other pool cannot pickle a lambda, but a forked worker has it
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return pool.submit(run_asked).result()


def run_asked():
    return asked()


def does_not_travel(ask, value, **remedy):
    """The host has the value, a forked worker has it, ours has it only with the remedy."""
    assert ask() == value
    assert seen_by_fork(ask) == value
    assert seen_by(ask) != value
    assert seen_by(ask, **remedy) == value


def module(folder, name, text):
    """Write a module and make it importable, here and in workers."""
    Path(folder, f"{name}.py").write_text(text)
    sys.path.insert(0, folder)


@claim("the decimal context")
def _():
    def set_up():
        decimal.getcontext().prec = 5

    set_up()
    does_not_travel(lambda: decimal.getcontext().prec, 5, initializer=set_up)


@claim("`numpy.seterr`")
def _():
    numpy.seterr(divide="raise")
    does_not_travel(lambda: numpy.geterr()["divide"], "raise", initializer=partial(numpy.seterr, divide="raise"))


@claim("a monkeypatch: `json.dumps = mine`")
def _():
    def patch():
        textwrap.dedent = str.upper

    original = textwrap.dedent
    patch()
    does_not_travel(lambda: textwrap.dedent is str.upper, True, initializer=patch)
    with tempfile.TemporaryDirectory() as folder:
        module(folder, "patches", "import textwrap\ntextwrap.dedent = str.upper\n")
        does_not_travel(lambda: textwrap.dedent is str.upper, True, preload=("patches",))
    textwrap.dedent = original


@claim("an attribute of an imported module: `settings.DEBUG = True`")
def _():
    def debug():
        import settings_of_from_fork as settings

        return settings.DEBUG

    def set_up():
        import settings_of_from_fork as settings

        settings.DEBUG = True

    with tempfile.TemporaryDirectory() as folder:
        module(folder, "settings_of_from_fork", "DEBUG = False\n")
        set_up()
        does_not_travel(debug, True, initializer=set_up)


@claim("`freeze_time`, `mock.patch` around the pool: monkeypatches")
def _():
    def year():
        return datetime.date.today().year

    def set_up():
        freezegun.freeze_time("2012-01-14").start()

    with freezegun.freeze_time("2012-01-14"):
        does_not_travel(year, 2012, initializer=set_up)

    def inside():
        with freezegun.freeze_time("2012-01-14"):
            return datetime.date.today().year

    assert seen_by(inside) == 2012
    with mock.patch("textwrap.dedent", str.upper):
        patch = partial(setattr, textwrap, "dedent", str.upper)
        does_not_travel(lambda: textwrap.dedent is str.upper, True, initializer=patch)


@claim(
    "an object other than a dict, list or set that was imported by name: `from settings import config; config.debug = True` "
    "under the guard (a task sees the program's, functions of `settings` see a fresh one)"
)
def _():
    global config, get_debug

    def set_up():
        import config_of_from_fork

        config_of_from_fork.config.debug = True

    with tempfile.TemporaryDirectory() as folder:
        lines = "class Config: debug = False", "config = Config()", "def get_debug(): return config.debug"
        module(folder, "config_of_from_fork", "\n".join(lines))
        from config_of_from_fork import config, get_debug

        config.debug = True
        assert seen_by(lambda: (config.debug, get_debug())) == (True, False)
        does_not_travel(lambda: (config.debug, get_debug()), (True, True), initializer=set_up)


class Index:
    def __init__(self):
        self.cache = {"a": 1}

    def __getstate__(self):
        return {"cache": None}


index = Index()


def fill_index():
    index.cache = {"a": 1}


@claim("a cache in a global whose `__getstate__` leaves it out")
def _():
    does_not_travel(lambda: index.cache, {"a": 1}, initializer=fill_index)


class Tee:
    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        return self.stream.write(text)

    def flush(self):
        self.stream.flush()


@claim("`sys.stdout`, replaced: `redirect_stdout` around the pool, a `Tee`")
def _():
    def set_up():
        sys.stdout = Tee(sys.stdout)

    original = sys.stdout
    try:
        set_up()
        does_not_travel(lambda: type(sys.stdout).__name__, "Tee", initializer=set_up)
    finally:
        sys.stdout = original
    with contextlib.redirect_stdout(io.StringIO()) as text:
        seen_by(lambda: print("elsewhere"))
    assert text.getvalue() == ""


@claim("registrations with an ABC")
def _():
    def register():
        collections.abc.Sequence.register(fractions.Fraction)

    register()
    does_not_travel(lambda: issubclass(fractions.Fraction, collections.abc.Sequence), True, initializer=register)
    with tempfile.TemporaryDirectory() as folder:
        module(folder, "shapes", "import abc\nclass Shape(abc.ABC): pass\nclass Box: pass\nShape.register(Box)\n")
        import shapes

        assert isinstance(shapes.Shape, abc.ABCMeta)
        assert seen_by(lambda: issubclass(shapes.Box, shapes.Shape))


@claim("`copyreg.pickle`, codecs, `atexit`, import hooks and other registries")
def _():
    copyreg.pickle(slice, slice_parts)
    register = partial(copyreg.pickle, slice, slice_parts)
    does_not_travel(lambda: slice in copyreg.dispatch_table, True, initializer=register)

    sys.meta_path.append(Finder)
    does_not_travel(lambda: Finder.__name__ in map(str, map(name_of, sys.meta_path)), True, initializer=add_finder)
    sys.meta_path.remove(Finder)

    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "note")
        with ForkPoolExecutor(1, initializer=atexit.register, initargs=(note.touch,)) as ours:
            ours.submit(abs, 1).result()
        assert note.exists()


def slice_parts(part):
    return slice, (part.start, part.stop, part.step)


def name_of(thing):
    return getattr(thing, "__name__", None)


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None


def add_finder():
    sys.meta_path.append(Finder)


def handlers():
    return [type(handler).__name__ for handler in logging.getLogger("ours").handlers]


@claim("log handlers for files and sockets")
def _():
    def set_up():
        logging.getLogger("ours").addHandler(logging.FileHandler(os.devnull))

    set_up()
    logging.getLogger().addHandler(logging.StreamHandler())
    does_not_travel(handlers, ["FileHandler"], initializer=set_up)
    assert seen_by(lambda: len(logging.getLogger().handlers)) == 1


@claim(
    "filters of loggers and handlers, classes of formatters and handlers, `propagate`, `setLogRecordFactory`, `addLevelName`, "
    "`captureWarnings` (what a filter hides in your program is printed by a worker)"
)
def _():
    def configured():
        root, ours = logging.getLogger(), logging.getLogger("ours")
        level, factory = logging.getLevelName(25), logging.getLogRecordFactory()
        formatters = [type(handler.formatter).__name__ for handler in root.handlers if handler.filters]
        return formatters, bool(ours.filters), ours.propagate, level, factory is not logging.LogRecord

    def set_up():
        class Shouting(logging.Formatter):
            pass

        handler = logging.StreamHandler()
        handler.setFormatter(Shouting())
        for filtered in (handler, logging.getLogger("ours")):
            filtered.addFilter(lambda record: False)
        logging.getLogger().addHandler(handler)
        logging.getLogger("ours").propagate = False
        logging.addLevelName(25, "NOTICE")
        logging.setLogRecordFactory(lambda *args, **kwargs: logging.LogRecord(*args, **kwargs))

    before = logging.getLogger().handlers[:]
    set_up()
    does_not_travel(configured, (["Shouting"], True, False, "NOTICE", True), initializer=set_up)
    logging.getLogger().handlers[:] = before


@claim('a warnings filter for a class of your program: `simplefilter("error", MyWarning)`')
def _():
    class MyWarning(UserWarning):
        pass

    def raises():
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                warnings.warn("mine", MyWarning, stacklevel=1)
            except MyWarning:
                return True
            return False

    set_up = partial(warnings.simplefilter, "error", MyWarning)
    with warnings.catch_warnings():
        set_up()
        does_not_travel(raises, True, initializer=set_up)


@claim("`socket.setdefaulttimeout`")
def _():
    socket.setdefaulttimeout(3.0)
    does_not_travel(socket.getdefaulttimeout, 3.0, initializer=partial(socket.setdefaulttimeout, 3.0))
    socket.setdefaulttimeout(None)


@claim("`contextvars`")
def _():
    def user():
        import users_of_from_fork

        return users_of_from_fork.user.get()

    with tempfile.TemporaryDirectory() as folder:
        module(folder, "users_of_from_fork", "import contextvars\nuser = contextvars.ContextVar('user', default='nobody')\n")
        import users_of_from_fork

        users_of_from_fork.user.set("anna")
        assert seen_by_fork(user) == "anna"
        assert seen_by(user) == "nobody"
        with ForkPoolExecutor(1) as ours:
            assert ours.submit(str.upper, user()).result() == "ANNA"


KEYS = """
from forkpool import ForkPoolExecutor as P
class Key:
    def __init__(self, text):
        self.text, self.hash = text, hash(text)
    def __hash__(self):
        return self.hash
    def __eq__(self, other):
        return self.text == other.text
keys = {Key("x"): 1}
print(hash("x") == P(1).submit(hash, "x").result() and P(1).submit(lambda: Key("x") in keys).result())
"""


@claim('the hash seed, so `hash("x")`, the order of sets of strings, and the place of keys that remember their hash')
def _():
    assert seen_by_fork(partial(hash, "x")) == hash("x")
    outcomes = []
    for seed in ("random", "0"):
        done = subprocess.run(
            [sys.executable, "-c", KEYS], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        outcomes.append(done.stdout.strip())
    assert outcomes == ["False", "True"]


@claim("a large table, loaded by a module")
def _():
    def identity():
        import table_of_from_fork

        return table_of_from_fork.pid

    with tempfile.TemporaryDirectory() as folder:
        module(folder, "table_of_from_fork", "import os\npid = os.getpid()\n")
        with ForkPoolExecutor(1, preload=("table_of_from_fork",)) as ours:
            assert ours.submit(identity).result() == ours.submit(os.getppid).result()  # loaded by the fork server


@claim("a table in a global of your program")
def _():
    table["size"] = 2
    assert seen_by(lambda: table["size"]) == 2


@claim("an array of numpy in memory that is shared and has no file (`numpy.frombuffer(mmap.mmap(-1, n))`)")
def _():
    def fill(array):
        return lambda: array.fill(1)

    without_file, of_raw_array, of_file = (
        numpy.frombuffer(mmap.mmap(-1, 80)),
        numpy.frombuffer(multiprocessing.RawArray("d", 10)),
        numpy.memmap(tempfile.TemporaryFile(), dtype=float, shape=(10,), mode="w+"),  # noqa: SIM115  # which holds it
    )
    seen_by_fork(fill(without_file))
    assert without_file.all()
    assert isinstance(error_of(lambda: seen_by(fill(without_file))), SerializationError)
    for array in (of_raw_array, of_file):
        seen_by(fill(array))
        assert array.all()


@claim("an open file, socket or connection")
def _():
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    is_open = partial(os.path.samestat, os.fstat(number))
    assert seen_by_fork(lambda: is_open(os.fstat(number)))
    error = error_of(lambda: seen_by(lambda: is_open(os.fstat(number)) or os.close(-1)))
    assert isinstance(error, OSError)
    assert seen_by(lambda: journal.name, initializer=open_journal) == os.devnull
    ours.close()
    theirs.close()


def open_journal():
    global journal
    journal = open(os.devnull, "w")  # noqa: SIM115  # the worker's, for its life


@claim("a `Lock`, `Queue` or `Event` of the fork context")
def _():
    with ForkPoolExecutor(1) as ours:
        error = ours.submit(take, FORK.Lock()).exception()
        assert isinstance(error, SerializationError)
        assert "get_context" in str(error)
    lock = multiprocessing.get_context("spawn").Lock()
    assert seen_by(lambda: kept.acquire(timeout=5), initializer=keep, initargs=(lock,))


def take(lock):
    return lock.acquire(timeout=5)


def keep(lock):
    global kept
    kept = lock


@claim("`numpy.random.seed(1)`")
def _():
    numpy.random.seed(1)
    expected = numpy.random.RandomState(1).randint(1 << 30)
    assert seen_by_fork(draw) == expected
    assert seen_by(draw) != expected
    assert seen_by(partial(draw_from, 1)) == draw_from(1)


def draw():
    return int(numpy.random.randint(1 << 30))


def draw_from(seed):
    return int(numpy.random.default_rng(seed).integers(1 << 30))


@claim("signal handlers")
def _():
    def set_up():
        signal.signal(signal.SIGUSR1, note_signal)

    set_up()
    does_not_travel(lambda: getattr(signal.getsignal(signal.SIGUSR1), "__name__", None), "note_signal", initializer=set_up)


def note_signal(number, frame):
    pass


@claim("`os.environ`, `os.chdir`, `os.umask`, after the first call")
def _():
    def now():
        return os.environ.get("LATE"), os.getcwd(), os.umask(0o22)

    before = now()
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(now).result() == before
        os.environ["LATE"] = "1"
        os.chdir("/")
        os.umask(0o27)
        assert ours.submit(now).result() == before
        ours.restart_workers()
        assert ours.submit(now).result() == ("1", "/", 0o27)


if __name__ == "__main__":
    try_all()
