"""The server with slow, silent, many or malformed clients."""

import asyncio
import errno
import gzip
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from exposition import value
from kickwatch.configuration.listen import parse_listen
from kickwatch.errors import AddressUnusableError, ConfigError, KickwatchError, ObserveError
from kickwatch.outlets.metrics import serve
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.outlets.metrics.serve import MOST_CONNECTIONS, MOST_HEAD_BYTES, Server

GET = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"


async def nothing() -> None:
    """Nothing to refresh."""


@asynccontextmanager
async def served(
    refresh: Callable[[], Awaitable[None]] = nothing, metrics: Metrics | None = None, listen: str = "127.0.0.1:0"
) -> AsyncIterator[Server]:
    server = Server(metrics or await asyncio.to_thread(Metrics, "1"), listen, refresh)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: Server, request: bytes = GET) -> tuple[int, bytes]:
    """Send one request. Returns status and body."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def handlers() -> list[asyncio.Task[object]]:
    """The server's remaining tasks."""
    return [task for task in asyncio.all_tasks() if "Server." in repr(task.get_coro())]


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def descriptors() -> int:
    return len(files(Path("/proc/self/fd")))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_it_answers_on_ipv4_and_ipv6(listen: str) -> None:
    async with served(listen=listen) as server:
        status, text = await ask(server)
        assert status == 200
        assert value(text, "kickwatch_build_info", version="1") == 1.0
        assert (await ask(server, GET.replace(b"/metrics", b"/")))[0] == 404
        assert (await ask(server, GET.replace(b"GET", b"PUT")))[0] == 405
        assert (await ask(server, b"HEAD /metrics HTTP/1.0\r\n\r\n")) == (200, b"")
        status, packed = await ask(server, GET.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n"))
        assert value(gzip.decompress(packed), "kickwatch_build_info", version="1") == 1.0


async def test_a_scrape_shows_fresh_figures() -> None:
    metrics, calls = await asyncio.to_thread(Metrics, "1"), 0

    async def refresh() -> None:
        nonlocal calls
        calls += 1
        metrics.observe(Live(requests={"do_sync_core": {b"k": 10 * calls}}))

    async with served(refresh, metrics) as server:
        for scrape in (1, 2, 3):
            _, text = await ask(server)
            assert value(text, "kickwatch_csd_requests_total", reason="do_sync_core") == 10 * scrape


async def test_simultaneous_scrapes_share_one_refresh() -> None:
    begun, go = 0, asyncio.Event()

    async def refresh() -> None:
        nonlocal begun
        begun += 1
        await go.wait()

    async with served(refresh) as server:
        asked = [asyncio.create_task(ask(server)) for _ in range(8)]
        await asyncio.sleep(0.3)
        go.set()
        answers = await asyncio.gather(*asked)
        assert {status for status, _ in answers} == {200}
        assert len({text for _, text in answers}) == 1
        assert begun == 1
        await ask(server)
        assert begun == 2


async def test_a_refresh_that_hangs_does_not_block_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "REFRESH_S", 0.2)
    begun = 0

    async def refresh() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with served(refresh) as server:
        start = time.monotonic()
        for scrape in (1, 2, 3):
            status, text = await ask(server)
            assert (status, value(text, "kickwatch_refreshes_failed_total")) == (200, scrape)
        assert time.monotonic() - start >= 0.6
        assert begun == 1  # the next scrapes wait for the refresh that hangs, and start no other
    assert not handlers()


async def test_a_refused_reading_leaves_the_previous_figures() -> None:
    metrics = await asyncio.to_thread(Metrics, "1")

    async def refresh() -> None:
        raise ObserveError("/proc/interrupts is empty", "read the whole file")

    metrics.observe(Live(requests={"other": {b"k": 5}}, up={"csd": True, "interrupts": True}))
    async with served(refresh, metrics) as server:
        _, text = await ask(server)
    assert value(text, "kickwatch_csd_requests_total", reason="other") == 5.0
    assert value(text, "kickwatch_refreshes_failed_total") == 1.0
    assert value(text, "kickwatch_observer_up", observer="csd") == 0.0
    assert value(text, "kickwatch_observer_up", observer="interrupts") == 0.0


async def test_a_slow_reading_does_not_mark_an_observer_as_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "REFRESH_S", 0.05)
    metrics = await asyncio.to_thread(Metrics, "1")
    metrics.observe(Live(up={"csd": True}))
    async with served(asyncio.Event().wait, metrics) as server:  # type: ignore[arg-type]
        _, text = await ask(server)
    assert value(text, "kickwatch_refreshes_failed_total") == 1.0
    assert value(text, "kickwatch_observer_up", observer="csd") == 1.0


async def test_silent_clients_are_dropped_and_block_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_REQUEST_S", 4.0)
    async with served() as server:
        silent = [await asyncio.open_connection(*server.address) for _ in range(MOST_CONNECTIONS - 1)]
        silent[0][1].write(b"GET /met")  # and nothing more
        start = time.monotonic()
        assert (await ask(server))[0] == 200
        assert time.monotonic() - start < 4.0
        answers = [await asyncio.wait_for(reader.read(), 30) for reader, _ in silent]
        assert all(b" 408 " in answer for answer in answers)
        for _, writer in silent:
            writer.close()
        assert not await _gone(handlers)


def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no time limit ends what should have ended by itself."""
    for limit in ("_REQUEST_S", "_EXCHANGE_S"):
        monkeypatch.setattr(serve, limit, 60.0)


async def test_too_many_clients_get_status_503(monkeypatch: pytest.MonkeyPatch) -> None:
    without_limits(monkeypatch)
    async with served() as server:
        silent = [await asyncio.open_connection(*server.address) for _ in range(MOST_CONNECTIONS)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection(*server.address)
        assert b" 503 " in await asyncio.wait_for(reader.read(), 30)
        writer.close()
        for _, client in silent:
            client.close()
        assert not await _gone(handlers)
        assert (await ask(server))[0] == 200


async def test_an_endless_head_gets_status_431() -> None:
    async with served() as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * (MOST_HEAD_BYTES + 1))
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert b" 431 " in answer


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The response is larger than the socket buffers of both ends."""
    monkeypatch.setattr(serve, "_EXCHANGE_S", 3.0)
    metrics = await asyncio.to_thread(Metrics, "1")
    metrics.text = lambda: b"#" * 30_000_000  # type: ignore[method-assign]
    async with served(metrics=metrics) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.address)
            client.sendall(GET)
            await asyncio.sleep(0.1)
            assert len(handlers()) == 1
            assert not await _gone(handlers)


async def test_clients_that_close_the_connection_leave_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    without_limits(monkeypatch)
    async with served() as server:
        for request in (b"", b"GET", GET):
            for _ in range(5):
                with socket.create_connection(server.address) as client:
                    client.sendall(request)
        assert not await _gone(handlers)
        assert (await ask(server))[0] == 200


async def test_closing_takes_less_than_a_second_and_leaves_no_task_and_no_descriptor() -> None:
    metrics = await asyncio.to_thread(Metrics, "1")

    async def refresh() -> None:
        await asyncio.Event().wait()

    before = descriptors()
    server = Server(metrics, "127.0.0.1:0", refresh)
    await server.start()
    address = server.address
    silent = [await asyncio.open_connection(*address) for _ in range(5)]
    asking = asyncio.create_task(ask(server))
    await asyncio.sleep(0.1)
    start = time.monotonic()
    await server.close()
    assert time.monotonic() - start < 1.0
    assert not handlers()
    with pytest.raises((IndexError, ConnectionError)):
        await asking
    for reader, writer in silent:
        assert await _ended(reader)
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await asyncio.sleep(0.05)
    assert descriptors() == before


def test_no_thread_outlives_the_loop() -> None:
    """The server starts no thread: it uses those of the event loop."""

    async def scrape() -> None:
        async with served() as server:
            assert (await ask(server))[0] == 200

    before = threading.active_count()
    asyncio.run(scrape())
    assert threading.active_count() == before


async def test_the_port_is_free_once_closed() -> None:
    async with served() as first:
        await ask(first)
        host, port = first.address
    async with served(listen=f"{host}:{port}") as second:
        assert (await ask(second))[0] == 200


async def test_close_without_start_does_nothing() -> None:
    server = Server(await asyncio.to_thread(Metrics, "1"), "127.0.0.1:0", nothing)
    await server.close()
    with pytest.raises(KickwatchError, match="does not listen"):
        _ = server.address


async def test_an_address_in_use_is_an_error_that_names_the_key() -> None:
    async with served() as first:
        host, port = first.address
        with pytest.raises(ConfigError, match=rf"metrics\.listen: .*{host}:{port} .*in use") as refused:
            async with served(listen=f"{host}:{port}"):
                pass
    assert "choose another port" in refused.value.remedy


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("192.0.2.1:9893", "no such address"),
        ("[2001:db8::1]:9893", "no such address|choose another"),
        ("127.0.0.1:65536", "up to 65535"),
        ("999.1.1.1:9893", "give an address"),
        ("[127.0.0.1]:9893", "give an address"),
        ("::1:9893", "give an address"),
        ("localhost:9893", "give an address"),
        ("[fe80::1]:9893", r"add it, for example \[fe80::1%eth0\]:9893"),
        ("[2001:db8::1%eth0]:9893", "remove %eth0"),
        ("[ff02::1]:9893", "a multicast address"),
        ("[::ffff:7f00:1]:9893", "an IPv4-mapped address"),
    ],
)
async def test_an_impossible_address_is_an_error_that_names_the_key(listen: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"metrics\.listen: .*({why})"):
        async with served(listen=listen):
            pass


@pytest.mark.parametrize("interface", ["kwabsent.42", "2147483647"])
async def test_an_interface_that_is_absent_may_come_up_later(interface: str) -> None:
    """A VLAN, for example. The cause has words, and no number of the resolver's."""
    with pytest.raises(AddressUnusableError, match="No such device") as refused:
        async with served(listen=f"[fe80::1%{interface}]:9893"):
            pass
    assert "no such interface now" in refused.value.remedy


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EAFNOSUPPORT, "enable it"),
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, r"fs\.file-max"),
        (errno.ENOMEM, "free some"),
        (errno.ENOBUFS, "free some"),
    ],
)
async def test_ipv6_that_is_off_and_missing_descriptors_or_memory_may_change(
    monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    """A mock: socket() refuses. Another address would not help."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    server = Server(await asyncio.to_thread(Metrics, "1"), "[::1]:9893", nothing)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        with pytest.raises(AddressUnusableError, match=rf"{os.strerror(number)}\): .*{remedy}"):
            await server.start()


async def test_a_port_that_needs_a_capability_is_an_error_that_waiting_does_not_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mock: root may use any port."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(serve, "_bound", refuse)
    with pytest.raises(ConfigError, match="choose a higher one") as refused:
        async with served(listen="127.0.0.1:80"):
            pass
    assert not isinstance(refused.value, AddressUnusableError)


def test_valid_addresses_are_parsed() -> None:
    assert parse_listen("127.0.0.1:9893") == ("127.0.0.1", 9893)
    assert parse_listen("[::]:80") == ("::", 80)
    assert parse_listen("[fe80::1%eth0.42]:9893") == ("fe80::1%eth0.42", 9893)


async def _gone(left: Callable[[], list[asyncio.Task[object]]]) -> list[asyncio.Task[object]]:
    """What remains after at most twenty seconds."""
    end = time.monotonic() + 20.0
    while left() and time.monotonic() < end:  # noqa: ASYNC110 -- a task that ends sets no event
        await asyncio.sleep(0.02)
    return left()


async def _ended(reader: asyncio.StreamReader) -> bool:
    """True if the peer closed or reset the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 20) == b""
    except ConnectionError:
        return True
