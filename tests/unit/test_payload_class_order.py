"""In which order a class is made: nothing runs or is hashed before it can be, and what ran in the host does not run again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

OWN_INSTANCES = """
import collections, dataclasses, enum, re

class Key:
    def __init__(self, v): self.v = v
    def __eq__(self, other): return isinstance(other, Key) and self.v == other.v
    def __hash__(self): return hash(self.v)
    def known(self, default=None): return self in Key.ALL
Key.ALL, Key.NAMES = {Key(1), Key(2)}, {Key(1): "one"}
Key.known.__defaults__ = (Key(5),)
@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
Frozen.ORIGIN, Frozen.TABLE = Frozen(0), {Frozen(1): "a"}
@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int
Slotted.ORIGIN, Slotted.TABLE = Slotted(7), {Slotted(1): "a"}
class Stated:
    def __init__(self, v): self.v, self.k = v, 1
    def __getstate__(self): return {"v": self.v * 10}
    def __setstate__(self, state): self.v, self.k = state["v"] // 10, 1
Stated.DEFAULT = Stated(3)
class New:
    def __new__(cls, v):
        made = super().__new__(cls)
        made.v = v
        return made
    def __getnewargs__(self): return (self.v,)
New.DEFAULT = New(3)
class Flyweight:
    cache = {}
    def __new__(cls, n):
        if n not in cls.cache: cls.cache[n] = super().__new__(cls)
        return cls.cache[n]
    def __init__(self, n): self.n = n
    def __getnewargs__(self): return (self.n,)
KM = Flyweight("km")
class Cached:
    cache = {}
    def __init__(self, v): self.v, Cached.cache[self] = v, v
    def __eq__(self, other): return self.v == other.v
    def __hash__(self): return hash(self.v)
Cached(1)
class Left:
    def has(self, right): return right in Left.ALL
class Right:
    owner = Left
    def __init__(self, v): self.v = v
    def __eq__(self, other): return isinstance(other, Right) and self.v == other.v
    def __hash__(self): return hash(self.v)
    def is_known(self): return self in Right.owner.ALL
Left.ALL = {Right(1)}
class Handlers:
    @classmethod
    def parse(cls, x): return cls.__name__, x
    @classmethod
    def dispatch(cls, x): return cls.table["p"](x)
Handlers.table = {"p": Handlers.parse}
class Method:
    def m(self): return "m"
Method.default = Method()
Method.call = staticmethod(Method.default.m)
class Version:
    pattern = re.compile(r"(\\d+)[.](\\d+)")
    def __init__(self, text): self.text, self.parts = text, tuple(map(int, self.pattern.match(text).groups()))
    def __reduce__(self): return Version, (self.text,)
class Config:
    LEAST = Version("1.2")
    def least(self, version=Version("3.4")): return version.parts
    def made():
        version = Version("5.6")
        def closes(self): return version.parts
        return closes
    closes = made()
    del made
@dataclasses.dataclass
class Field:
    version: Version = Version("7.8")
class Coded(Exception):
    CODES = {Key(1): "one"}
    def __init__(self, code): super().__init__(code); self.text = self.CODES[code]
class Holder:
    error = Coded(Key(1))
TABLE, PATTERN = {"a": 1}, re.compile("a")
class Looked:
    OWN = {"own": 2}
    def __init__(self, name): self.name, self.found = name, (TABLE[name], bool(PATTERN.match(name)), Looked.OWN["own"])
    def __reduce__(self): return Looked, (self.name,)
Looked.FIRST = Looked("a")
Pair = collections.namedtuple("Pair", "a b")
class Release(enum.Enum):
    OLD = Version("1.2")
    NEW = Version("2.0")
    ELDEST = OLD
    PAIR = Pair(1, 2)
    NUMBER = 3
    def parts(self): return self.value.parts
class Ordinal(enum.Enum):
    FIRST = Key(1)
    SECOND = [2]
class Word(enum.Enum):
    A = "a"
    @classmethod
    def parse(cls, text): return cls.BY_TEXT[text]
Word.BY_TEXT, Word.BACK = {"a": Word.A}, {Word.A: "a"}
"""

CHECKS = [
    "Key(1) in Key.ALL and Key(3) not in Key.ALL and Key.NAMES[Key(1)] == 'one'",
    "Key(2).known() and Key.known.__defaults__ == (Key(5),)",
    "Frozen.ORIGIN == Frozen(0) and Frozen.TABLE[Frozen(1)] == 'a'",
    "Slotted.ORIGIN.x == 7 and Slotted.TABLE[Slotted(1)] == 'a'",
    "(Stated.DEFAULT.v, Stated.DEFAULT.k) == (3, 1)",
    "New.DEFAULT.v == 3",
    "Flyweight('km') is KM is Flyweight.cache['km'] and Flyweight.cache == {'km': KM}",
    "Cached.cache[Cached(1)] == 1",
    "Left().has(Right(1)) and Right(1).is_known() and not Left().has(Right(2))",
    "Right(1).is_known()",
    "Handlers.dispatch(3) == ('Handlers', 3)",
    "Method.call() == 'm'",
    "Config.LEAST.parts == (1, 2)",
    "Config().least() == (3, 4)",
    "Config().closes() == (5, 6)",
    "Field().version.parts == (7, 8)",
    "Holder.error.text == 'one'",
    "Looked.FIRST.found == (1, True, 2)",
    "Release.OLD.parts() == (1, 2) and Release.ELDEST is Release.OLD and Release.NEW.parts() == (2, 0)",
    "Release(Pair(1, 2)) is Release.PAIR and Release(3) is Release.NUMBER and Release(Release.NEW.value) is Release.NEW",
    "Pair(1, 2) in Release._value2member_map_ and len(Release) == 4 and list(Release)[0].name == 'OLD'",
    "Ordinal(Key(1)) is Ordinal.FIRST and Ordinal([2]) is Ordinal.SECOND",
    "Word.parse('a') is Word.A and Word.BACK[Word.A] == 'a'",
]


@pytest.mark.parametrize("expression", CHECKS)
def test_a_class_may_hold_its_own_instances(notebook: Notebook, worker: Worker, expression: str) -> None:
    notebook.cell(OWN_INSTANCES).cell(f"def run(): return {expression}")
    assert notebook.run()
    assert worker.call(notebook.run) is True


def test_instances_that_a_task_puts_into_its_class_come_back(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def make():
            class Local:
                def __init__(self, v): self.v = v
                def __eq__(self, other): return self.v == other.v
                def __hash__(self): return hash(self.v)
            Local.ALL = {Local(1)}
            return Local
    """)
    local = worker.call(notebook.make)
    assert local(1) in local.ALL


COUNTED = """
import abc, typing
made = []
class Base{base}:
    {slots}
    def __init_subclass__(cls, *, tag, **kwargs):
        made.append(tag)
        super().__init_subclass__(**kwargs)
class First(Base, tag="first"):
    {own_slots}
class Second(First, tag="second"): pass
def run(): return First, Second
def look(): return made, First.__bases__ == (Base,), Second.__mro__[1:3] == (First, Base), Base.__subclasses__() == [First]
def make(): return Second()
"""
BASES = [
    ("", "pass", "pass"),
    ("", "__slots__ = ()", "pass"),
    ("", "__slots__ = ('a',)", "__slots__ = ()"),
    ("", "__slots__ = ('a',)", "pass"),
    ("", "__slots__ = ('__dict__',)", "pass"),
    ("", "__slots__ = ('__weakref__',)", "__slots__ = ()"),
    ("(dict)", "pass", "pass"),
    ("(str)", "pass", "pass"),
    ("(tuple)", "__slots__ = ()", "__slots__ = ()"),
    ("(Exception)", "pass", "pass"),
    ("(typing.Generic[typing.TypeVar('T')])", "pass", "pass"),
    ("(abc.ABC)", "pass", "pass"),
]


@pytest.mark.parametrize(("base", "slots", "own_slots"), BASES)
def test_no_init_subclass_runs_again(notebook: Notebook, worker: Worker, base: str, slots: str, own_slots: str) -> None:
    notebook.cell(COUNTED.format(base=base, slots=slots, own_slots=own_slots))
    assert worker.call(notebook.run) == (notebook.First, notebook.Second)
    assert worker.call(notebook.look) == notebook.look() == (["first", "second"], True, True, True)
    assert type(worker.call(notebook.make)) is notebook.Second
    assert worker.call(lambda cls: hasattr(cls, "__dict__"), notebook.Second) == hasattr(notebook.Second, "__dict__")


def test_a_base_that_stands_behind_others(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        made = []
        class Lean:
            __slots__ = ()
        class Base:
            def __init_subclass__(cls): made.append(cls.__name__)
        class Listed(list): pass
        class Both(Lean, Base): pass
        class All(Both, Listed): pass
        def run():
            class Third(All): pass
            return made, All.__bases__ == (Both, Listed), Both.__bases__ == (Lean, Base), Third([1])
    """)
    assert worker.call(notebook.run) == (["Both", "All", "Third"], True, True, [1])


def test_a_base_of_a_library_that_checks_its_subclasses(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library_that_checks.py").write_text(
        "class Base:\n    def __init_subclass__(cls):\n        if not hasattr(cls, 'run'): raise TypeError(cls)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    notebook.cell("""
        import library_that_checks
        class Job(library_that_checks.Base):
            def run(self): return "ran"
    """)
    with Worker(path=[str(tmp_path)]) as worker:
        assert worker.call(notebook.Job().run) == "ran"
    del sys.modules["library_that_checks"]


def test_what_the_host_changes_in_members_of_an_enum(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import enum
        class Resource(enum.Enum):
            CPU = "cpu"
            MOST = [1]
            def __init__(self, value): self.limit = 0
        def look(): return Resource.CPU.limit, Resource.MOST.value, Resource("cpu") is Resource.CPU
    """)
    assert worker.call(notebook.look) == (0, [1], True)
    notebook.Resource.CPU.limit = 4
    notebook.Resource.MOST.value.append(2)
    assert worker.call(notebook.look) == (4, [1, 2], True)


def test_a_member_that_changes_beside_one_of_a_class(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import enum
        class Value:
            def __init__(self, x): self.x = x
        class Mixed(enum.Enum):
            PLAIN = 1
            RICH = Value(2)
        def look(): return getattr(Mixed.PLAIN, "mark", None), Mixed.RICH.value.x
    """)
    assert worker.call(notebook.look) == (None, 2)
    notebook.Mixed.PLAIN.mark = "new"
    assert worker.call(notebook.look) == ("new", 2)
    notebook.Mixed.RICH.value.x = 3
    assert worker.call(notebook.look) == ("new", 3)


@pytest.mark.parametrize("how", ["super().__getitem__(name).value", "super().__getitem__(name.upper())"])
def test_a_member_of_an_enum_whose_metaclass_finds_members_its_own_way(notebook: Notebook, worker: Worker, how: str) -> None:
    notebook.cell(f"""
        import enum
        class Meta(enum.EnumMeta):
            def __getitem__(cls, name): return {how}
        class Odd(enum.Enum, metaclass=Meta):
            low = 10
        def same(value): return value
    """)
    assert worker.call(notebook.same, notebook.Odd.low) is notebook.Odd.low
    assert worker.call(lambda value: value.name, notebook.Odd.low) == "low"


def test_what_the_host_changes_in_the_make_of_a_class(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Old:
            def which(self): return "old"
        class New:
            def which(self): return "new"
        class C(Old): pass
        def look(): return C().which(), C.__name__, C.__qualname__
    """)
    assert worker.call(notebook.look) == ("old", "C", "C")
    notebook.C.__bases__, notebook.C.__name__, notebook.C.__qualname__ = (notebook.New,), "D", "E"
    assert worker.call(notebook.look) == ("new", "D", "E")


def test_a_member_of_an_enum_whose_value_is_like_no_other(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import enum, functools
        class Value: pass
        class Odd(enum.Enum):
            OBJECT = Value()
            NAN = float("nan")
            CALL = functools.partial(int)
        class Bits(enum.Flag):
            A = 1
            B = 2
        def same(value): return value
    """)
    for member in (*notebook.Odd, *notebook.Bits, notebook.Bits.A | notebook.Bits.B):
        assert worker.call(notebook.same, member) is member
        assert worker.call(lambda value: value.name, member) == member.name


SINGLETONS = {
    "is None": "if cls.only is None: cls.only = super().__new__(cls)",
    "not": "if not cls.only: cls.only = super().__new__(cls)",
    "hasattr": "if not hasattr(cls, 'only'): cls.only = super().__new__(cls)",
    "getattr": "if getattr(cls, 'only', 'none') == 'none': cls.only = super().__new__(cls)",
    "__dict__": "if 'only' not in cls.__dict__: cls.only = super().__new__(cls)",
}


@pytest.mark.parametrize("asks", SINGLETONS)
@pytest.mark.parametrize("use", ["one", "One()", "One.only", "of()"])
def test_a_singleton_that_its_class_holds(asks: str, use: str, notebook: Notebook, worker: Worker) -> None:
    first = "only = None" if asks in ("is None", "not") else ""
    notebook.cell(f"""
        class One:
            {first}
            def __new__(cls):
                {SINGLETONS[asks]}
                return cls.only
        one = One()
        one.value = 7
        def of(): return one
        def use(): return {use}.value, {use} is One.only, One() is One.only
    """)
    assert [worker.call(notebook.use) for _ in range(2)] == [(7, True, True)] * 2


def test_plugins_that_hold_the_registry_that_holds_them(notebook: Notebook, worker: Worker) -> None:
    """The registry is being made when the class of its second plugin is met, which is to hold the registry."""
    notebook.cell("""
        class Registry:
            def __init__(self): self.plugins = []
        registry = Registry()
        class First: registry, others = registry, [registry]
        class Second: registry, others = registry, [registry]
        registry.plugins += [First(), Second()]
        def look(): return [cls.registry is registry is cls.others[0] for cls in (First, Second)], len(registry.plugins)
        def through(): return [type(plugin).registry is registry for plugin in registry.plugins]
    """)
    assert worker.call(notebook.look) == ([True, True], 2)
    assert worker.call(notebook.through) == [True, True]
    notebook.cell("registry.plugins.append(First())")
    assert worker.call(notebook.through) == [True, True, True]
    assert worker.call(notebook.look) == ([True, True], 3)


@pytest.mark.parametrize("use", ["held() is Held and Held.held is held", "Held.held is held and held() is Held"])
def test_a_method_that_closes_over_its_class(use: str, notebook: Notebook, worker: Worker) -> None:
    notebook.cell(f"""
        def make(cls):
            def held(): return cls
            return held
        class Held:
            def first(self): return 1
        held = make(Held)
        Held.held = staticmethod(held)
        Held.last = lambda self: 2
        def use(): return {use}, held().first(held()()), held()().last()
    """)
    assert [worker.call(notebook.use) for _ in range(2)] == [(True, 1, 2)] * 2


def test_a_local_class_that_holds_a_global_which_closes_over_it(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def make():
            class Local: pass
            def wrapper(): return Local
            Local.wrapper, Local.all = wrapper, {"wrapper": wrapper}
            return wrapper
        wrapper = make()
        def use(): return [found is wrapper for found in (vars(wrapper())["wrapper"], wrapper().all["wrapper"])]
    """)
    assert worker.call(notebook.use) == [True, True]


def test_classes_whose_attributes_hold_globals_that_hold_each_other(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class App: pass
        class Client: pass
        class Server: pass
        app, db = App(), App()
        app.db, db.app, app.client, db.server = db, app, Client(), Server()
        Client.app, Client.both, Server.db = app, [app, db], db
        def of_client(): return Client.app is app, Client.both[1] is db, type(app.client) is Client
        def of_server(): return Server.db is db, Server.db.app is app, type(db.server) is Server
    """)
    for fn in (notebook.of_client, notebook.of_server) * 2:
        assert worker.call(fn) == (True, True, True)


def test_a_singleton_that_is_a_default(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Missing:
            only = None
            def __new__(cls):
                if cls.only is None: cls.only = super().__new__(cls)
                return cls.only
        MISSING = Missing()
        def get(value=MISSING): return value is MISSING is Missing.only is Missing()
    """)
    assert worker.call(notebook.get) is True


@pytest.mark.parametrize("hook", ["__setstate__", "__hash__", "__init__"])
def test_what_instances_in_attributes_of_classes_need_while_they_are_made(
    notebook: Notebook, worker: Worker, hook: str
) -> None:
    """Modules, functions (with annotations of classes, too) and other globals, that are named by nothing but their methods."""
    notebook.cell(f"""
        import math
        from decimal import Decimal
        class Scale:
            factor = 2
        SCALE = Scale()
        def scaled(value, scale: Scale | None = None): return math.floor(Decimal(value) * SCALE.factor)
        class Money:
            def __init__(self, amount):
                self.amount = amount
                if {hook!r} == "__init__": scaled(1)
            def __reduce__(self): return (Money, (self.amount,), {{"amount": self.amount}})
            def __hash__(self): return scaled(self.amount) if {hook!r} == "__hash__" else 1
            def __eq__(self, other): return self.amount == other.amount
            def __setstate__(self, state):
                if {hook!r} == "__setstate__": scaled(1)
                vars(self).update(state)
        class Bank:
            ALL = {{Money(1), Money(2)}}
            def price(self, money=Money(3)): return money.amount
        Money.ZERO = Money(0)
        ALSO = [Money(4)]
        def task(): return Money.ZERO.amount, len(Bank.ALL), Bank().price(), ALSO[0].amount
    """)
    assert worker.call(notebook.task) == (0, 2, 3, 4)


def test_a_value_that_needs_another_one_to_be_made(notebook: Notebook, worker: Worker) -> None:
    """In whichever order the task names them."""
    notebook.cell("""
        class Thing: pass
        TABLE = {"k": Thing()}
        class Looks:
            def __init__(self): self.found = None
            def __setstate__(self, state): self.found = TABLE["k"]
        looks = Looks()
        def first(): return TABLE["k"] is looks.found
        def second(): return looks.found is TABLE["k"]
    """)
    assert worker.call(notebook.first) is True
    assert worker.call(notebook.second) is True


def test_a_name_that_is_nowhere_is_still_an_error(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Wrong:
            def __setstate__(self, state): missing_name
            def __getstate__(self): return 1
        class Holds: held = Wrong()
        def task(): return Holds
    """)
    with pytest.raises(NameError, match="missing_name"):
        worker.call(notebook.task)


def test_a_singleton_that_a_class_method_makes(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Config:
            _instance = None
            made = 0
            @classmethod
            def get(cls):
                if cls._instance is None:
                    cls._instance = cls()
                    cls.made += 1
                return cls._instance
            def __reduce__(self): return Config.get, ()
        config = Config.get()
        def task(): return Config.get() is config is Config._instance
    """)
    assert worker.call(notebook.task) is True
