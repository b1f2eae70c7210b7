"""A fresh interpreter that plays the worker: calls go in by a pipe, answers come back. For the payload tests."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forkpool._host.answers import decode_exception, decode_value
from forkpool._host.fd_server import FdServer
from forkpool._host.reactor import Reactor
from forkpool._shared.owning_payload import OwningPayload
from forkpool._shared.passed_fds import address_of
from forkpool._shared.payload import CallEncoder, PayloadError

SOURCE = str(Path(__file__).parents[2] / "src")
PROGRAM = """
import struct, sys
sys.path.insert(0, sys.argv[1])
sys.path[:] = eval(sys.argv[2])
from forkpool._shared.decoding import CallDecoder, Lacking
from forkpool._shared.payload import ResultEncoder, PayloadError
if len(sys.argv) > 3:
    import multiprocessing
    multiprocessing.current_process().authkey = bytes.fromhex(sys.argv[3])
decoder, results = CallDecoder(['the host']), ResultEncoder()
source, sink = sys.stdin.buffer, open(1, "wb", closefd=False)
while len(head := source.read(8)) == 8:
    try:
        fn, args, kwargs = decoder.decode(source.read(struct.unpack("<Q", head)[0]))
        value = fn(*args, **kwargs)
        try:
            data, plain = results.encode_value(value)
            kind = b"v"
        except PayloadError as exc:
            data, kind = str(exc).encode(), b"u"
    except Lacking:
        data, kind = b"", b"l"
    except BaseException as exc:
        data, kind = results.encode_exception(exc), b"e"
    sink.write(kind + struct.pack("<Q", len(data)) + data)
    sink.flush()
"""


def site_packages() -> list[str]:
    """Return the entries that every interpreter of this environment has."""
    return [entry for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix))]


class Worker:
    """Calls functions in another process, one at a time."""

    def __init__(self, encoder: CallEncoder | None = None, path: list[str] | None = None) -> None:
        self.encoder = encoder or CallEncoder()
        self.times_whole = 0  # how often it lacked something
        shown = [SOURCE, *site_packages(), *path] if path is not None else [entry or os.getcwd() for entry in sys.path]
        extra = [repr(shown)]
        if "multiprocessing" in sys.modules:
            extra.append(sys.modules["multiprocessing"].current_process().authkey.hex())
        command = [sys.executable, "-P", "-c", PROGRAM, SOURCE, *extra]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.encoder.encode(fn, args, kwargs))

    def run(self, payload: bytes) -> Any:
        """Send it as short as it is; whole, if the worker lacks something."""
        kind, data = self._send(payload, payload)
        if kind == b"l":
            assert isinstance(payload, OwningPayload)
            self.times_whole += 1
            kind, data = self._send(payload, b"".join(payload.whole()))
        assert kind != b"l"
        if kind == b"v":
            return decode_value(data)
        if kind == b"u":
            raise PayloadError(data.decode(), "result")
        raise decode_exception(data)

    def _send(self, payload: bytes, data: bytes) -> tuple[bytes, bytes]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lender(payload) as lend:
            process.stdin.write(struct.pack("<Q", len(data)) + data)
            process.stdin.flush()
            lend()
        kind = process.stdout.read(1)
        assert kind, f"the worker died: {process.wait()}"
        return kind, process.stdout.read(struct.unpack("<Q", process.stdout.read(8))[0])

    @contextmanager
    def _lender(self, payload: bytes) -> Iterator[Callable[[], None]]:
        """Be the pool that has the descriptors of a call: the function serves them until the answer comes."""
        if not isinstance(payload, OwningPayload) or payload.holding is None:
            yield lambda: None
            return
        assert self._process.stdout is not None
        answers, reactor = self._process.stdout.fileno(), Reactor()
        reactor.open()
        calls = {self._process.pid: [(payload, True)]}
        server = FdServer(address_of(""), reactor, calls.get)
        server.open()
        reactor.watch(answers, lambda: reactor.unwatch(answers))

        def serve() -> None:
            while answers in reactor._handlers:
                reactor.handle(reactor.wait(None))

        yield serve
        server.close()
        reactor.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
