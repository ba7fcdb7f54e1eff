"""The official Python client (PyPI `mcp`) as an agent.

Arguments, as one JSON object: `url`, `token`, `revision` (`auto`: as negotiated), `tour` (`demo` or `everything`),
`leaks`. Prints the JSON object that the test asserts on; `received` holds every byte and header that it was given.
"""

import json
import logging
import sys
import time

import anyio
import httpx2
import mcp.client.session
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

STATELESS = "2026-07-28"
MAX_RECEIVED = 8_000_000


class RecordedStream(httpx2.AsyncByteStream):
    """Hands on a response's body and keeps a copy."""

    def __init__(self, stream, keep):
        self.stream = stream
        self.keep = keep

    async def __aiter__(self):
        async for chunk in self.stream:
            self.keep(chunk)
            yield chunk

    async def aclose(self):
        await self.stream.aclose()


class RecordingTransport(httpx2.AsyncHTTPTransport):
    """Keeps a copy of all that is received."""

    def __init__(self):
        super().__init__()
        self.received = bytearray()

    def keep(self, data):
        if len(self.received) < MAX_RECEIVED:
            self.received += data

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        self.keep(f"\n{response.status_code} {response.reason_phrase}\n".encode())
        for name, value in response.headers.raw:
            self.keep(name + b": " + value + b"\n")
        response.stream = RecordedStream(response.stream, self.keep)
        return response


class Warnings(logging.Handler):
    """Keeps what the SDK complains about."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def plain(value):
    """A result as JSON."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def describe(error):
    """What the client made of a failure."""
    code, data = getattr(error, "code", None), getattr(error, "data", None)
    return {"name": type(error).__name__, "code": code, "message": str(error), "data": data}


async def attempt(call):
    """A result or an error."""
    try:
        return {"result": plain(await call)}
    except MCPError as error:
        return {"error": describe(error)}


async def tour(client, given):
    """The tour against the demo upstream."""
    report = {"tools": [tool.name for tool in (await client.list_tools()).tools], "leaks": []}
    report["echo"] = plain(await client.call_tool("echo", {"message": "hello"}))
    for leak in given["leaks"]:
        report["leaks"].append({"leak": leak, **await attempt(client.call_tool("leak", leak))})
    report["denied"] = await attempt(client.call_tool("delete_everything", {}))
    report["echo_again"] = plain(await client.call_tool("echo", {"message": "hello again"}))
    return report


async def everything_tour(client, _given):
    """The tour against the "everything" server."""
    report = {"tools": [tool.name for tool in (await client.list_tools()).tools], "progress": []}
    report["echo"] = plain(await client.call_tool("echo", {"message": "hello"}))
    started = time.monotonic()

    def elapsed_ms():
        return (time.monotonic() - started) * 1000

    async def on_progress(progress, total, _message):
        report["progress"].append({"progress": progress, "total": total, "after_ms": elapsed_ms()})

    slow = {"duration": 1, "steps": 4}
    result = await client.call_tool("trigger-long-running-operation", slow, progress_callback=on_progress)
    report["long"], report["long_ms"] = plain(result), elapsed_ms()
    report["picture"] = plain(await client.call_tool("get-tiny-image", {}))
    return report


async def main(given):
    """Connects, makes the tour, prints."""
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    revision = given["revision"]
    mode = revision if revision in ("auto", STATELESS) else "legacy"
    if mode == "legacy":
        # The SDK always offers its newest revision with sessions.
        mcp.client.session.LATEST_HANDSHAKE_VERSION = revision
    transport = RecordingTransport()
    headers = {"authorization": f"Bearer {given['token']}"}
    async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=30) as http_client:
        streams = streamable_http_client(given["url"], http_client=http_client)
        async with Client(streams, mode=mode, read_timeout_seconds=30) as client:
            make = everything_tour if given["tour"] == "everything" else tour
            report = await make(client, given)
            report["revision"] = client.protocol_version
            report["server"] = client.server_info.name if client.server_info else None
    report["errors"] = warnings.messages
    report["received"] = transport.received.decode(errors="replace")
    print(json.dumps(report))


anyio.run(main, json.loads(sys.argv[1]))
