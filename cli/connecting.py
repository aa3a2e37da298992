"""Clients of Temporal for commands at the command line, with the address and the desk that the settings name.

What a kill waits for before it is sent: it imports neither the database nor the workflow.
"""

import asyncio
import time

from temporalio.client import Client

import settings
from startup import NotUp, Say, patiently
from workflows.gateway import DeskGateway, TemporalUnreachable, connect, unreachable_text

CONNECT_SECONDS = 15.0
STATUS_SECONDS = 5.0


def desk_gateway(client: Client) -> DeskGateway:
    """The desk that the settings name."""
    return DeskGateway(client, settings.DeskSettings.load().desk, patience=STATUS_SECONDS)


async def connect_lazily() -> Client:
    """A client that connects with its first call, so that an unreachable Temporal is reported at once."""
    config = settings.temporal_connect_config()
    try:
        return await connect(config, lazy=True)
    except (ValueError, RuntimeError) as error:
        raise NotUp(
            f"Temporal at {config.get('target_host')} cannot be called: {error}; check TEMPORAL_ADDRESS"
        ) from error


async def connect_patiently(say: Say) -> Client:
    """A client that is connected. Waits for a Temporal that does not answer yet, and says so; raises NotUp."""
    config = settings.temporal_connect_config()
    what, began = f"Temporal at {config.get('target_host')}", time.monotonic()

    async def attempt() -> Client:
        # A server that accepts connections but says nothing would hold one attempt for longer than all attempts may take.
        left = max(0.1, CONNECT_SECONDS - (time.monotonic() - began))
        try:
            async with asyncio.timeout(left):
                return await connect(config)
        except RuntimeError as error:
            raise TemporalUnreachable(unreachable_text(error)) from error
        except TimeoutError as error:
            raise TemporalUnreachable(unreachable_text(f"no connection within {left:.1f} s")) from error

    try:
        return await patiently(what, attempt, CONNECT_SECONDS, say, TemporalUnreachable)
    except ValueError as error:
        # A malformed address or certificate: waiting would not help.
        raise NotUp(f"{what} cannot be called: {error}; check TEMPORAL_ADDRESS") from error
