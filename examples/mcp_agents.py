"""Three agents in three processes share one login at an MCP server; when it expires, one of them refreshes it for all.

    pip install 'httpx-refresh[cli,httpx2]' 'mcp>=2'
    httpx-refresh login --mcp https://mcp.example.com/mcp --store file:token.json
    python examples/mcp_agents.py https://mcp.example.com/mcp token.json

Each agent lists the server's tools, waits for a line, and lists them again. Let the token expire meanwhile.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import httpx2
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client

from httpx_refresh import FileStore, RefreshAuth, mcp

AGENTS = 3


async def agent(url: str, store: str) -> None:
    """One agent: it knows the server's address, and where the login is kept."""
    # With "return" a dead grant fails one call, and does not end the session.
    auth = RefreshAuth(mcp.Server(url), FileStore(store), unauthorized="return")
    # What the SDK's own clients have: a tool may take its time, and httpx2 gives up after five seconds.
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=timeout) as http,
        streamable_http_client(url, http_client=http) as (reading, writing, *_),
        ClientSession(reading, writing) as session,
    ):
        await session.initialize()
        for _ in range(2):
            tools = (await session.list_tools()).tools
            line = ", ".join(tool.name for tool in tools) + "\n"
            print(line, end="", flush=True)  # in one write: three processes share the output
            await asyncio.to_thread(sys.stdin.readline)


def main(url: str, store: str) -> None:
    """Start the agents, and pass each line of standard input on to all of them."""
    command = [sys.executable, __file__, url, store, "agent"]
    agents = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(AGENTS)]
    for line in sys.stdin:
        for one in agents:
            assert one.stdin is not None
            one.stdin.write(line)
            one.stdin.flush()
    for one in agents:
        assert one.stdin is not None
        one.stdin.close()
    sys.exit(max(one.wait() for one in agents))


if __name__ == "__main__":
    if sys.argv[3:] == ["agent"]:
        asyncio.run(agent(*sys.argv[1:3]))
    else:
        main(*sys.argv[1:3])
