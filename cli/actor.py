"""Who is at this command line. On its own, so that what needs no Temporal does not load it."""

import getpass
import os
import socket

from domain.values import encodable


def actor() -> str:
    """The person at this command line, as the decision log names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user without a name: no reason not to kill.
        user = f"uid-{os.getuid()}"
    return str(encodable(f"cli:{user}@{socket.gethostname()}"))
