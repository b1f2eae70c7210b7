"""Errors that teach: each names the part that cannot travel and the way out. The texts are compared as they are."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import copyreg
import functools
import multiprocessing
import queue
import socket
import sqlite3
import ssl
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from forkpool._shared.calls import run_chunk
from forkpool._shared.decoding import CallDecoder
from forkpool._shared.payload import CallEncoder, PayloadError, ResultEncoder
from tests.support.shortage import descriptors_left
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

LOCK = "is a lock (_thread.lock), which only works inside one process;"
USE_SPAWN = 'or use multiprocessing.get_context("spawn").Lock()'
LOCK_WAY_OUT = f"{LOCK} create it inside the task, {USE_SPAWN}"
ATTRIBUTE_WAY_OUT = f"{LOCK} drop it in `__getstate__`, create it inside the task, {USE_SPAWN}"
INSTEAD = "make it in the initializer, or inside the function, instead"


class Service:
    """Holds something and has a method that a user would submit."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def run(self) -> None:
        pass


def work(*args: Any, **kwargs: Any) -> None:
    pass


def refuse(fn: Any, *args: Any, **kwargs: Any) -> PayloadError:
    with pytest.raises(PayloadError) as info:
        CallEncoder().encode(fn, args, kwargs)
    return info.value


def test_a_bound_method_of_an_object_that_holds_an_executor() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        error = refuse(Service(name="a", ex=executor).run)
    assert error.part == "Service.ex"
    assert str(error) == (
        "cannot send `Service.run` to a worker: `Service.ex` is an executor (concurrent.futures.thread.ThreadPoolExecutor), "
        "which belongs to its process; make the function a plain function or a static method, or drop the attribute in "
        "`__getstate__`"
    )


def test_of_one_that_holds_a_lock() -> None:
    error = refuse(Service(lock=threading.Lock()).run)
    assert (error.part, str(error)) == (
        "Service.lock",
        f"cannot send `Service.run` to a worker: `Service.lock` {ATTRIBUTE_WAY_OUT}",
    )


def test_of_one_that_holds_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        error = refuse(Service(log=file).run)
    assert str(error).startswith("cannot send `Service.run` to a worker: `Service.log` is an open file (")
    assert str(error).endswith("which belongs to its process; pass the path and open it inside the task")


def test_of_one_that_holds_a_connection() -> None:
    connection = sqlite3.connect(":memory:")
    inside = "which belongs to its process; create it inside the task, or in an initializer that stores it in a global"
    intro = "cannot send `Service.run` to a worker: `Service.it` is"
    assert str(refuse(Service(it=connection).run)) == f"{intro} an open connection (sqlite3.Connection), {inside}"
    connection.close()


class Wrapped(socket.socket):
    pass


def test_sockets_that_cannot_be_handed_over() -> None:
    intro = "cannot send argument 1 of `work` to a worker: it is"
    with socket.socket() as closed:
        pass
    assert str(refuse(work, closed)) == f"{intro} a socket that is closed; submit the call before you close it"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with context.wrap_socket(socket.socket()) as wrapped:
        assert str(refuse(work, wrapped)) == (
            f"{intro} an SSL socket, whose keys and buffers are in the memory of its process; pass the plain socket and "
            "wrap it inside the task, or connect there"
        )
    with Wrapped() as special:
        assert str(refuse(work, special)).startswith(f"{intro} a tests.unit.test_payload_errors.Wrapped, which is not a plain")


async def refuse_writer() -> str:
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    said = str(refuse(work, writer))
    writer.close()
    await writer.wait_closed()
    theirs.close()
    return said


def test_streams_of_asyncio() -> None:
    assert asyncio.run(refuse_writer()) == (
        "cannot send argument 1 of `work` to a worker: it is a stream or transport of asyncio (asyncio.streams.StreamWriter), "
        "which belongs to its event loop; pass a socket that asyncio does not use, or connect inside the task"
    )


def test_a_socket_for_which_there_is_no_descriptor() -> None:
    with socket.socket() as made:
        with descriptors_left(0):
            said = str(refuse(work, made))
        assert said == (
            "cannot send argument 1 of `work` to a worker: it (a socket.socket) cannot be pickled: "
            "OSError: [Errno 24] Too many open files"
        )


def test_deeper_attributes_are_named_by_their_path() -> None:
    assert refuse(Service(inner=Service(items=[1, threading.Lock()])).run).part == "Service.inner.items[1]"


def test_arguments_are_named() -> None:
    lock = threading.Lock()
    assert str(refuse(work, 1, lock)) == f"cannot send argument 2 of `work` to a worker: it {LOCK_WAY_OUT}"
    assert refuse(work, lock).part == "argument 1"
    assert refuse(work, x={"a": [lock]}).part == "keyword argument 'x'['a'][0]"
    assert refuse(work, Service(lock=lock)).part == "Service.lock"


def test_generators_say_what_to_do() -> None:
    error = refuse(work, (x for x in ()))
    assert str(error) == (
        "cannot send argument 1 of `work` to a worker: it is a generator, which cannot leave its process; "
        "pass or return list(...) instead"
    )
    with pytest.raises(PayloadError) as info:
        ResultEncoder().encode_value(x for x in ())
    assert str(info.value) == (
        "the task is done, but its result cannot be sent back: it is a generator, which cannot leave its process; "
        "pass or return list(...) instead"
    )


def test_closure_variables_globals_defaults_and_partials_are_named(notebook: Notebook) -> None:
    lock = threading.Lock()
    notebook.module.__dict__["lock"] = lock
    notebook.cell("def uses(): return lock\ndef outer(): return uses()\nclass Holder: held = lock\ndef third(): return Holder")
    assert refuse(lambda: lock).part.startswith("closure variable 'lock' of `")
    assert refuse(notebook.uses).part == "global 'lock' used by `uses`"
    assert refuse(notebook.outer).part == "global 'lock' used by `uses`"
    assert refuse(notebook.third).part == "Holder.held"
    assert refuse(lambda x=lock: x).part.startswith("a default value of `")
    assert refuse(functools.partial(work, lock)).part == "argument 1 of the partial"


def test_elements_keys_and_arguments_of_exceptions_are_named() -> None:
    lock = threading.Lock()
    assert refuse(work, {lock}).part.startswith("argument 1, element <unlocked _thread.lock ")
    assert refuse(work, frozenset([(1, lock)])).part.endswith("...[1]")
    assert refuse(work, collections.deque([1, lock])).part == "argument 1[1]"
    assert refuse(work, {"a": {lock: 1}}).part.startswith("argument 1['a'], key <unlocked ")
    assert refuse(work, {(1, lock): 1}).part.endswith("...[1]")
    assert refuse(work, ValueError("a", lock)).part == "ValueError.args[1]"
    assert refuse(work, collections.ChainMap({"a": lock})).part == "ChainMap.maps[0]['a']"

    class Words(list[str]):
        held = None

    words = Words(["a"])
    words.held = lock  # type: ignore[assignment]
    assert refuse(work, words).part.endswith("Words.held")


def test_what_is_made_at_module_level_is_to_be_made_elsewhere(notebook: Notebook) -> None:
    names = {"lock": threading.Lock(), "local": threading.local(), "event": threading.Event(), "queue": queue.Queue()}
    notebook.module.__dict__.update(names, held=[threading.RLock()])
    notebook.cell("class Holder: held = lock")
    told = {}
    with Path(__file__).open() as notebook.module.__dict__["file"]:
        for name in (*names, "held", "file", "Holder"):
            notebook.cell(f"def uses(): return {name}")
            told[name] = str(refuse(notebook.uses)).partition("; ")[2]
    spawn = 'multiprocessing.get_context("spawn")'
    assert told == {
        "lock": f"{INSTEAD}, or use {spawn}.Lock()",
        "local": INSTEAD,
        "event": f"{INSTEAD}, or use {spawn}.Event()",
        "queue": f"{INSTEAD}, or use {spawn}.Queue() or multiprocessing.Manager().Queue()",
        "held": f"{INSTEAD}, or use {spawn}.RLock()",
        "file": "open it in the initializer, or inside the function, instead",
        "Holder": f"{INSTEAD}, or use {spawn}.Lock()",
    }


ATTRIBUTES_OF_CLASSES = """
class Service:
    held = what
    def run(self): return Service
    def again(self): return super().run, self.run
class Derived(Service):
    def run(self): return super().run, Derived, service
    def __init__(self): self.me = self
class Outer:
    def run(self): return Outer, self
    inner = Service()
class Meta(type):
    held = what
class Made(metaclass=Meta):
    def run(self): pass
class Looks:
    def run(self): return what
service, derived, made = Service(), Derived(), Made()
def uses(): return service
def uses_derived(): return Derived
def give(value): return value
def local():
    class Service:
        held = what
    return Service()
"""


def test_an_attribute_of_a_class_is_named_whatever_leads_there(notebook: Notebook) -> None:
    notebook.module.__dict__.update(what=threading.Lock(), functools=functools)
    notebook.cell(ATTRIBUTES_OF_CLASSES)
    ways = [
        (notebook.service.run,),
        (notebook.derived.again,),
        (notebook.derived.run,),
        (notebook.Service.run,),
        (notebook.Outer().run,),
        (notebook.uses,),
        (notebook.uses_derived,),
        (notebook.give, notebook.service),
        (notebook.give, [{"a": notebook.derived}]),
        (notebook.give, notebook.Derived),
    ]
    assert {refuse(*way).part for way in ways} == {"Service.held"}
    assert str(refuse(notebook.service.run)) == (
        f"cannot send `Service.run` to a worker: `Service.held` {LOCK} {INSTEAD}, {USE_SPAWN}"
    )
    assert refuse(notebook.made.run).part == "Meta.held"
    assert refuse(notebook.Looks().run).part == "global 'what' used by `Looks.run`"


OF_MAIN = """
import contextvars, io, threading
from http.cookiejar import CookieJar
from pathlib import Path
lock, jar, variable, file = threading.Lock(), CookieJar(), contextvars.ContextVar("variable"), Path("/dev/null").open()
class Holder: held = lock
class Service:
    def __init__(self): self.lock = lock
class Refuses:
    def __reduce__(self): raise ValueError("no way")
service, refuses = Service(), [Refuses()]
def use_service(): return service
def use_refuses(): return refuses
def give(value): return value
def use_lock(): return lock
def use_jar(): return jar
def use_variable(): return variable
def use_holder(): return Holder
def use_file(): return file
"""
PRELOAD = ', or give each worker its own with preload=("__main__",) and a guard'


def test_what_preloading_the_program_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Notebook("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main.module)
    main.cell(OF_MAIN)
    cured = [main.use_lock, main.use_jar, main.use_variable, main.use_holder, main.use_service, main.use_refuses]
    assert not any("preload" in str(refuse(use)) for use in cured)  # no file that could run again
    main.module.__file__ = __file__
    assert [str(refuse(use)).endswith(PRELOAD) for use in cured] == [True] * len(cured)
    assert "preload" not in str(refuse(main.use_file)) + str(refuse(main.give, main.lock)) + str(refuse(main.give, main.jar))
    assert "preload" not in str(refuse(main.give, main.service)) + str(refuse(main.give, main.refuses))
    with pytest.raises(PayloadError) as info:
        ResultEncoder().encode_value(main.Holder())
    assert "preload" not in str(info.value)
    encoder = CallEncoder(preloads_main=True)
    for use in cured:
        encoder.encode(use, (), {})
    main.file.close()


DROPS = """
import threading
lock = threading.Lock()
class Runner:
    def __init__(self, **held): vars(self).update(held)
    def __getstate__(self): return {"n": 1}
    def other(self):
        with lock: pass
    def step(self): pass
class Slotted:
    __slots__ = ("held", "__dict__")
    def __getstate__(self): return {"n": 1}, {"given": self.held}
class Listed(Runner):
    def __getstate__(self): return [self.held]
class Deep(Runner):
    def __getstate__(self):
        import copy
        return copy.deepcopy(vars(self))
class Reduced(Runner):
    def __reduce__(self): return make, (1, self.held)
class Failing(Runner):
    def __reduce__(self): raise ValueError("no way")
class Registered(Runner): pass
def make(*args): pass
def make_locked(*args): return lock
class Locked(Runner):
    def __reduce__(self): return make_locked, ()
class Given(Runner): pass
class Set(Runner): pass
def set_locked(it, state): return lock
class Error(Exception):
    def __init__(self, held): super().__init__("a"); self.held, self.args = held, ("a", held)
    def __reduce__(self): return make, ("a",), {"given": self.held}
def give(value): pass
"""


def test_what_getstate_drops_is_not_to_blame(notebook: Notebook) -> None:
    notebook.cell(DROPS)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        error = refuse(notebook.Runner(ex=executor).other)
    assert (error.part, str(error)) == (
        "global 'lock' used by `Runner.other`",
        f"cannot send `Runner.other` to a worker: global 'lock' used by `Runner.other` {LOCK} {INSTEAD}, {USE_SPAWN}",
    )


def test_what_a_class_says_of_its_instances_is_looked_through(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.cell(DROPS)
    del notebook.module.Runner.other
    make, set_locked = notebook.make, notebook.set_locked
    reducers = {
        "Registered": lambda it: (make, ([1, it.held],)),
        "Given": lambda it: (make, (it.held,)),
        "Set": lambda it: (make, (), 1, None, None, set_locked),
    }
    for name, reducer in reducers.items():
        monkeypatch.setitem(copyreg.dispatch_table, getattr(notebook, name), reducer)
    slotted = notebook.Slotted()
    slotted.held, slotted.unsent = threading.Lock(), threading.Lock()
    assert refuse(notebook.give, slotted).part == "Slotted.given"
    parts = {
        "Listed": "Listed.__getstate__()[0]",
        "Deep": "Deep.held",
        "Reduced": "Reduced.__reduce__()[1][1]",
        "Registered": "argument 1[1]",
        "Given": "a part of argument 1",
        "Locked": "global 'lock' used by `make_locked`",
        "Set": "global 'lock'",
        "Error": "Error.given",
    }
    told = {name: refuse(notebook.give, getattr(notebook, name)(held=threading.Lock())).part for name in parts}
    assert told == parts
    assert str(refuse(notebook.give, notebook.Failing(held=threading.Lock()))).endswith(
        "it (a notebook_for_tests.Failing) cannot be pickled: ValueError: no way"
    )
    assert str(refuse(notebook.give, notebook.Reduced(held=threading.Lock()))).endswith(f"[1][1]` {LOCK_WAY_OUT}")
    made = types.MethodType(notebook.make_locked, 1)
    assert refuse(made).part == "global 'lock' used by `make_locked`"


OF_A_LIBRARY = """
import types
from http.cookiejar import CookieJar
jar = CookieJar()
held = {"a": [jar]}
class Holder:
    def __init__(self): self.own = jar
    def run(self): pass
def use(): return jar
def use_held(): return held
def use_holder(): return Holder
def give(value): return value
def closes(jar): return lambda: jar
"""


FRAMEWORK = """
import threading, weakref
lock = threading.Lock()
class App:
    def __init__(self):
        own = weakref.ref(self)
        self.views = {"static": lambda: (own, lock)}
"""


def test_what_a_library_holds_is_called_what_the_program_calls_it(notebook: Notebook) -> None:
    notebook.cell(OF_A_LIBRARY)
    jar, holder = notebook.jar, notebook.Holder()
    lock = "is a lock (_thread.RLock), which only works inside one process;"
    of_global = f"{lock} {INSTEAD.replace('it', 'the global', 1)}"
    in_task = f"{lock} make the `CookieJar` inside the task, or in an initializer that stores it in a global"
    of_holder = f"{lock} drop `Holder.own` in `__getstate__`, or make it inside the task"
    inside = "`CookieJar._cookies_lock`"
    first, inner = "argument 1 of `give`", "closes.<locals>.<lambda>"
    told = [
        ((notebook.use,), f"`use` to a worker: global 'jar' used by `use`: {inside} {of_global}"),
        ((notebook.use_held,), f"`use_held` to a worker: global 'held' used by `use_held`['a'][0]: {inside} {of_global}"),
        ((notebook.give, jar), f"{first} to a worker: {inside} {in_task}"),
        ((notebook.give, [jar]), f"{first} to a worker: argument 1[0]: {inside} {in_task}"),
        ((notebook.give, holder), f"{first} to a worker: `Holder.own._cookies_lock` {of_holder}"),
        ((holder.run,), f"`Holder.run` to a worker: `Holder.own._cookies_lock` {of_holder}"),
        ((jar.clear,), f"`CookieJar.clear` to a worker: {inside} {in_task}"),
        ((notebook.closes(jar),), f"`{inner}` to a worker: closure variable 'jar' of `{inner}`: {inside} {in_task}"),
        (
            (functools.partial(notebook.give, jar),),
            f"`give` to a worker: argument 1 of the partial: {inside} {in_task}",
        ),
        (
            (notebook.give, types.SimpleNamespace(jar=jar)),
            f"{first} to a worker: `SimpleNamespace.jar._cookies_lock` {in_task}",
        ),
    ]
    assert [str(refuse(*call)) for call, _ in told] == [f"cannot send {said}" for _, said in told]
    assert refuse(notebook.use).part == "CookieJar._cookies_lock"
    notebook.Holder.jar = jar
    assert str(refuse(notebook.use_holder)) == (
        "cannot send `use_holder` to a worker: global 'Holder' used by `use_holder`: `Holder.jar._cookies_lock` "
        f"{lock} {INSTEAD.replace('it', '`Holder.jar`', 1)}"
    )
    with pytest.raises(PayloadError) as info:
        ResultEncoder().encode_value([jar])
    assert str(info.value) == (
        f"the task is done, but its result cannot be sent back: result[0]: {inside} {lock} "
        "return data instead of the `CookieJar`"
    )


def test_a_closure_of_a_library_is_called_what_the_program_calls_it(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "framework.py").write_text(FRAMEWORK)
    monkeypatch.syspath_prepend(library)
    notebook.cell("import framework\napp = framework.App()\ndef use(): return app.n")
    reference = "(a weakref.ReferenceType) cannot be pickled: TypeError: cannot pickle 'weakref.ReferenceType' object"
    assert str(refuse(notebook.use)) == (
        "cannot send `use` to a worker: global 'app' used by `use`: closure variable 'own' of `App.__init__.<locals>.<lambda>` "
        f"{reference}; {INSTEAD.replace('it', 'the global', 1)}"
    )
    del sys.modules["framework"]


def test_a_module_by_value_is_asked_for_what_the_code_uses(notebook: Notebook, plugin: Notebook) -> None:
    plugin.cell("import threading\nunused, used = threading.Lock(), threading.RLock()")
    notebook.module.__dict__["plugin"] = plugin.module
    notebook.cell("def use(): return plugin.used")
    assert str(refuse(notebook.use)) == (
        "cannot send `use` to a worker: global 'plugin' used by `use`: `plugin_for_tests.used` is a lock (_thread.RLock), "
        f"which only works inside one process; {INSTEAD}, {USE_SPAWN.replace('Lock', 'RLock')}"
    )


def test_an_attribute_of_an_abstract_class_is_named(notebook: Notebook) -> None:
    notebook.module.__dict__.update(what=threading.Lock())
    notebook.cell("import abc\nclass Shape(abc.ABC): held = what\nclass Round(Shape):\n  def area(self): return Round")
    assert refuse(notebook.Round().area).part == "Shape.held"


def test_so_is_one_of_the_class_of_a_result(notebook: Notebook) -> None:
    notebook.module.__dict__.update(what=threading.Lock(), functools=functools)
    notebook.cell(ATTRIBUTES_OF_CLASSES)
    with pytest.raises(PayloadError) as info:
        ResultEncoder().encode_value(notebook.local())
    assert str(info.value) == (
        f"the task is done, but its result cannot be sent back: `local.<locals>.Service.held` {LOCK} {INSTEAD}, {USE_SPAWN}"
    )


def test_what_a_class_may_hold(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    executor, connection = concurrent.futures.ThreadPoolExecutor(1), sqlite3.connect(":memory:")
    lock = multiprocessing.get_context("fork").Lock()
    notebook.cell("class Service:\n  def run(self): return self.held")
    told = []
    with Path("log").open("w") as file:
        for what in (executor, connection, file, lock):
            notebook.module.Service.held = what
            told.append(str(refuse(notebook.Service().run)))
    connection.close()
    intro = "cannot send `Service.run` to a worker: `Service.held` is"
    assert told == [
        f"{intro} an executor (concurrent.futures.thread.ThreadPoolExecutor), which belongs to its process; {INSTEAD}",
        f"{intro} an open connection (sqlite3.Connection), which belongs to its process; {INSTEAD}",
        f"{intro} an open file ('log'), which belongs to its process; {INSTEAD.replace('make', 'open', 1)}",
        f'{intro} a Lock of a "fork" context, which no other start method can hand over; make it with '
        '`multiprocessing.get_context("spawn").Lock()`',
    ]


class Refuses:
    """Holds what leads back to where one came from, and is to blame all the same."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def __reduce__(self) -> Any:
        raise ValueError("no way")


def test_where_everything_leads_back_the_first_circle_is_blamed() -> None:
    outer = Service()
    outer.inner = Refuses(outer=outer)  # type: ignore[attr-defined]
    error = refuse(outer.run)
    assert error.part == "Service.inner"
    assert str(error).endswith(
        "`Service.inner` (a tests.unit.test_payload_errors.Refuses) cannot be pickled: ValueError: no way"
    )


ELSEWHERE = f"{INSTEAD}, or use it as an attribute of a module that workers can import"
IN_C = """
import asyncio, contextvars, ctypes, weakref
class Point(ctypes.Structure): _fields_ = [("x", ctypes.c_int)]
class Either(ctypes.Union): _fields_ = [("x", ctypes.c_int), ("f", ctypes.c_float)]
class Segment(ctypes.Structure): _fields_ = [("of", Point), ("more", ctypes.c_int * 3)]
class Cached(weakref.WeakValueDictionary): pass
library, variable, cached = ctypes.CDLL(None), contextvars.ContextVar("variable"), Cached()
function, three, pointer = library.strlen, ctypes.c_int * 3, ctypes.POINTER(ctypes.c_int)
def give(value): return value
"""


def test_what_the_program_made_with_c_is_to_be_made_elsewhere(notebook: Notebook) -> None:
    notebook.cell(IN_C)
    module, loop = notebook.module.__name__, asyncio.new_event_loop()
    notebook.module.__dict__["loop"] = loop
    told = {}
    for name in ("library", "function", "three", "pointer", "variable", "cached", "loop"):
        notebook.cell(f"def uses(): return {name}")
        intro, _, told[name] = str(refuse(notebook.uses)).partition(f"global {name!r} used by `uses` ")
        assert intro == "cannot send `uses` to a worker: "
    loop.close()
    no_module = "a type that ctypes made and that no module holds under that name"
    weak = "TypeError: cannot pickle 'weakref.ReferenceType' object"
    assert told == {
        "library": "is a library of C functions (ctypes.CDLL), which belongs to its process; "
        + ELSEWHERE.replace("make", "load", 1),
        "function": "is a C function (ctypes.CDLL.__init__.<locals>._FuncPtr), which belongs to its process; "
        + ELSEWHERE.replace("make it", "look it up", 1),
        "three": f"is {notebook.three.__module__}.c_int_Array_3, {no_module}; {ELSEWHERE}",
        "pointer": f"is {notebook.pointer.__module__}.LP_c_int, {no_module}; {ELSEWHERE}",
        "variable": "(a _contextvars.ContextVar) cannot be pickled: "
        f"TypeError: cannot pickle '_contextvars.ContextVar' object; {ELSEWHERE}",
        "cached": f"(a {module}.Cached) cannot be pickled: {weak}; {ELSEWHERE}",
        "loop": f"is an event loop of asyncio ({type(loop).__module__}.{type(loop).__qualname__}), which belongs to its "
        "process; run what needs it inside the task, with asyncio.run(...)",
    }


def test_structures_of_the_program_belong_into_a_module(notebook: Notebook) -> None:
    notebook.cell(IN_C)
    give = notebook.give
    for name in ("Point", "Either", "Segment"):
        cls = getattr(notebook, name)
        is_one = f"is {cls.__module__}.{name}, a class of ctypes, whose fields only its `class` statement can make"
        way_out = "put the class into a module that workers can import"
        assert str(refuse(cls)) == f"cannot send `{name}` to a worker: it {is_one}; {way_out}"
        assert str(refuse(give, cls())) == f"cannot send argument 1 of `give` to a worker: `{name}` {is_one}; {way_out}"
        with pytest.raises(PayloadError) as info:
            ResultEncoder().encode_value([cls()])
        assert str(info.value) == (
            f"the task is done, but its result cannot be sent back: result[0]: `{name}` {is_one}; {way_out}"
        )


def test_what_a_weak_dictionary_holds_is_named(notebook: Notebook) -> None:
    notebook.cell("import weakref\nclass Key: pass\nkey, weak = Key(), weakref.WeakKeyDictionary()\ndef uses(): return weak")
    notebook.weak[notebook.key] = threading.Lock()
    assert refuse(notebook.uses).part.startswith("global 'weak' used by `uses`[<notebook_for_tests.Key ")


def test_a_chunk_of_a_map_is_told_by_function_and_item(notebook: Notebook) -> None:
    lock = threading.Lock()
    error = refuse(functools.partial(run_chunk, work), ((1, 2), (1, [lock])))
    assert error.part == "argument 2[0]"
    assert str(error) == (
        "cannot send argument 2 of `work` (item 2 of 2 in its chunk) to a worker: argument 2[0] "
        f"{LOCK} create it inside the task, {USE_SPAWN}"
    )
    notebook.module.__dict__["lock"] = lock
    notebook.cell("def uses(): return lock")
    error = refuse(functools.partial(run_chunk, notebook.uses), ((1,), (2,)))
    assert str(error) == (f"cannot send `uses` to a worker: global 'lock' used by `uses` {LOCK} {INSTEAD}, {USE_SPAWN}")


class FailsToBeRead:
    """No two ways to look at it, but it cannot be pickled in any case."""

    def __reduce__(self) -> Any:
        raise ValueError("no way")

    def __call__(self) -> None: ...


class HidesItsDict(FailsToBeRead):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no dict")


class HidesItsClass(FailsToBeRead):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class HidesItsAttributes(FailsToBeRead):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class HidesItsItems(list[int]):
    def __iter__(self) -> Any:
        raise RuntimeError("no items")


class HidesItsText(FailsToBeRead):
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise NoText


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("kind", [HidesItsDict, HidesItsClass, HidesItsAttributes, HidesItsText])
def test_what_cannot_be_looked_at_is_told_all_the_same(kind: Any) -> None:
    why = "NoText" if kind is HidesItsText else "ValueError: no way"
    name = f"a {kind.__module__}.{kind.__qualname__}"
    intro = "cannot send argument 1 of `work` to a worker:"
    assert str(refuse(work, kind())) == f"{intro} it ({name}) cannot be pickled: {why}"
    assert str(refuse(work, [kind()])) == f"{intro} argument 1[0] ({name}) cannot be pickled: {why}"
    assert str(refuse(kind())) == f"cannot send `{kind.__qualname__}` to a worker: it ({name}) cannot be pickled: {why}"
    assert refuse(functools.partial(kind())).part.startswith("the function of the partial")


def test_a_container_that_cannot_be_read() -> None:
    said = str(refuse(work, HidesItsItems([1])))
    assert said == "cannot send argument 1 of `work` to a worker: it cannot be pickled: RuntimeError: no items"


def test_recursion_is_explained() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert str(refuse(work, nested)) == (
        "cannot send argument 1 of `work` to a worker: it (a builtins.list) cannot be pickled: it is nested too deeply for "
        "pickle (recursion depth); flatten it (a linked list or tree as a list of rows), or raise sys.setrecursionlimit()"
    )
    while nested:  # unnest by hand: the deallocator of old Pythons recurses
        nested = nested[0]


@pytest.mark.parametrize("method", ["__reduce__", "__getstate__"])
def test_what_user_code_raises_is_the_cause(method: str) -> None:
    def fail(self: Any) -> Any:
        raise ValueError("no way")

    kind = type("Refuses", (), {method: fail})
    error = refuse(work, kind())
    assert isinstance(error.__cause__, ValueError)
    assert str(error).endswith("cannot be pickled: ValueError: no way")


def test_what_is_no_exception_passes_through() -> None:
    class Interrupts:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CallEncoder().encode(work, (Interrupts(),), {})


BY_NAME_ONLY = (
    "and serializer='pickle' ships nothing by value; use serializer='auto', or move it to the top level of a module that "
    "workers can import"
)


def test_serializer_pickle_refuses_in_the_host_what_a_worker_cannot_look_up(notebook: Notebook) -> None:
    notebook.module.__dict__["lock"] = threading.Lock()
    notebook.cell("class Errors(list):\n  def __init__(self): pass\ndef val(): return Errors()\ndef uses(): return lock")
    encoder, name = CallEncoder("pickle"), notebook.module.__name__
    module = f"is of the module {name!r}, which workers cannot import"
    for what in (notebook.val, notebook.Errors, notebook.uses):
        with pytest.raises(PayloadError) as info:
            encoder.encode(what, (), {})
        assert str(info.value) == f"cannot send `{what.__qualname__}` to a worker: it {module}, {BY_NAME_ONLY}"
    with pytest.raises(PayloadError) as info:
        encoder.encode(len, ([notebook.val],), {})
    assert str(info.value) == f"cannot send argument 1 of `len` to a worker: argument 1[0] {module}, {BY_NAME_ONLY}"
    with pytest.raises(PayloadError) as info:
        encoder.encode(len, (notebook.Errors(),), {})
    assert str(info.value) == (
        f"cannot send argument 1 of `len` to a worker: it (a {name}.Errors) cannot be pickled: "
        f"PicklingError: {name}.Errors {module}, {BY_NAME_ONLY}"
    )
    with pytest.raises(PayloadError, match=r"it is not what workers find as '.*<lambda>' in the module 'tests\.unit\."):
        CallEncoder("pickle").encode(lambda: 1, (), {})
    assert CallDecoder().decode(CallEncoder("pickle").encode(len, ("abc",), {})) == (len, ("abc",), {})


def test_a_module_that_the_worker_cannot_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with Worker(path=[]) as worker:
        with pytest.raises(ModuleNotFoundError) as info:
            worker.call(only_here.f)
        looked, of_host = info.value.__notes__[0].splitlines()
        assert looked.startswith("The worker looked for 'only_here' in its sys.path: [")
        assert of_host == "The host's sys.path when the call was submitted: ['the host']"
        monkeypatch.syspath_prepend(tmp_path / "added since")  # so the call brings the whole path along
        assert worker.call(only_here.f) == 1


def calls_with(encoder: CallEncoder, fn: Any, *args: Any) -> None:
    for _ in range(5):
        encoder.encode(fn, args, {})


def test_one_warning_per_call_site_that_ships_the_same_megabytes(notebook: Notebook) -> None:
    notebook.cell("big = b'x' * 2_000_000\ndef uses(): return len(big)")
    texts: list[str] = []
    encoder = CallEncoder(warn=texts.append)
    calls_with(encoder, notebook.uses)
    closed_over = "y" * 3_000_000

    def uses() -> str:
        return closed_over

    calls_with(encoder, uses)
    calls_with(encoder, len, b"z" * 2_000_000)
    assert [text.partition(" 3 times from ")[0] for text in texts] == [
        "global 'big' used by `uses` is 2.0 MB and was pickled, to see whether it has changed,",
        f"closure variable 'closed_over' of `{uses.__qualname__}` is 3.0 MB and was sent to a worker",
        "argument 1 of `len` is 2.0 MB and was sent to a worker",
    ]
    assert all(f"{__file__}:" in text for text in texts)


def test_no_warning_when_the_data_differs() -> None:
    texts: list[str] = []
    encoder = CallEncoder(warn=texts.append)
    for number in range(6):
        encoder.encode(len, (str(number) * 2_000_000,), {})
    assert texts == []
