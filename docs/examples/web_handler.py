"""Serve HTTP with asyncio and compute each answer in a worker, with a time limit, and killed when the client leaves.

The pattern below takes ages for a long row of "a", inside C code that no thread could be stopped in.
The pool has one worker, so a call that went on after its client had left would hold up everybody else.
The hard part is to notice that the client left: the handler waits for the answer and for the end of the connection.
(A client that closes only its sending side counts as gone; HTTP clients do not do that before they have their answer.)
`main` starts the server and plays four clients. Only the standard library is used beside forkpool.
Tests: tests/docs/test_examples.py
"""

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from functools import partial

from forkpool import ForkPoolExecutor, TaskTimeoutError

LIMIT = 3.0  # seconds that a call may run
PATIENCE = 0.3  # seconds after which the impatient client leaves
SLOW = "a" * 60


def is_match(text: str) -> bool:
    """The task: it runs in the worker."""
    return re.fullmatch(r"(a+)+b", text) is not None


async def answer(pool: ForkPoolExecutor, text: str, client_left: asyncio.Task[bytes]) -> tuple[str, str] | None:
    """Return status and body, or None if the client left first; its call is dead by then."""
    call = pool.options(timeout=LIMIT).submit(is_match, text)
    waiter = asyncio.wrap_future(call)
    either: set[asyncio.Future[bool] | asyncio.Task[bytes]] = {waiter, client_left}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not waiter.done() and call.kill():
        await asyncio.wait({waiter})  # it ends when the worker is dead
        return None
    try:
        return "200 OK", str(await waiter)
    except TaskTimeoutError:
        return "504 Gateway Timeout", f"no answer within {LIMIT:g} s"


async def handle(pool: ForkPoolExecutor, reader: StreamReader, writer: StreamWriter) -> None:
    """Handle one connection, which carries one GET request."""
    request = await reader.readuntil(b"\r\n\r\n")
    client_left = asyncio.create_task(reader.read())  # ends with the connection
    try:
        reply = await answer(pool, request.split()[1].decode().removeprefix("/"), client_left)
        if reply is None:
            print("client left, call killed")
        else:
            status, body = reply
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    finally:
        client_left.cancel()
        writer.close()


async def get(port: int, text: str, patience: float | None = None) -> str:
    """Be a client: return status and body, or leave when patience (seconds; None: endless) is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /{text} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        reply = (await asyncio.wait_for(reader.read(), patience)).decode()
    except TimeoutError:
        return "left"
    finally:
        writer.close()
    head, _, body = reply.partition("\r\n\r\n")
    return f"{head.splitlines()[0].removeprefix('HTTP/1.1 ')}: {body}"


async def main() -> None:
    with ForkPoolExecutor(max_workers=1) as pool:
        server = await asyncio.start_server(partial(handle, pool), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            print(await get(port, "aab"))
            print(await get(port, SLOW))
            print(await get(port, SLOW, PATIENCE))
            print(await get(port, "aab"))  # the slot has a new worker
        counts = pool.statistics()
        print(f"{counts.timed_out} call timed out, {counts.cancelled} killed")


if __name__ == "__main__":
    asyncio.run(main())
