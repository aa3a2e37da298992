"""Who is at this command line. A module of its own, so that commands without Temporal need not load its client."""

import getpass
import os
import socket

from domain.values import encodable


def actor() -> str:
    """The person at this command line, as the decision log names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name. That must not prevent a kill.
        user = f"uid-{os.getuid()}"
    return str(encodable(f"cli:{user}@{socket.gethostname()}"))
