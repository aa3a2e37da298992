"""The proxy fails as it says it does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import SLOW_SECONDS, Proxy, to_port


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Before a server that answers every line with itself."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    made = Proxy(to_port(server.sockets[0].getsockname()[1]))
    await made.start()
    yield made
    await made.close()
    server.close()


async def said(proxy: Proxy, seconds: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(b"hello\n")
        return await asyncio.wait_for(reader.readline(), seconds)
    finally:
        writer.close()


async def test_the_proxy_passes_bytes_on(proxy: Proxy) -> None:
    assert await said(proxy) == b"hello\n"


async def test_it_refuses_and_listens_again_on_the_same_port(proxy: Proxy) -> None:
    port = proxy.port
    await proxy.change("refused")
    with pytest.raises(ConnectionRefusedError):
        await said(proxy)
    await proxy.change("pass")
    assert proxy.port == port
    assert await said(proxy) == b"hello\n"


async def test_it_resets_what_is_open_and_what_comes(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    await proxy.change("reset")
    with pytest.raises(ConnectionResetError):
        await reader.readline()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await said(proxy)


async def test_what_fell_into_a_black_hole_arrives_afterwards(proxy: Proxy) -> None:
    await proxy.change("black_hole")
    with pytest.raises(TimeoutError):
        await said(proxy, 0.2)
    waiting = asyncio.create_task(said(proxy))
    await proxy.change("pass")
    assert await waiting == b"hello\n"


async def test_it_is_slow_each_way(proxy: Proxy) -> None:
    await proxy.change("slow")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await said(proxy) == b"hello\n"
    assert loop.time() - began >= 2 * SLOW_SECONDS - 0.02


async def test_a_half_closed_connection_gets_no_answer(proxy: Proxy) -> None:
    await proxy.change("half_closed")
    assert await said(proxy) == b""


async def test_a_direction_that_was_closed_stays_so_when_the_fault_is_over(proxy: Proxy) -> None:
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: broken.append(told))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.change("half_closed")
    writer.write(b"hello\n")
    assert await asyncio.wait_for(reader.readline(), 5.0) == b""
    await proxy.change("pass")
    writer.write(b"again\n")
    # By then the proxy has passed that on, and has had its answer.
    assert [await said(proxy) for _ in range(3)] == [b"hello\n"] * 3
    writer.close()
    assert not broken
