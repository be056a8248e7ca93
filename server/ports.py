"""Whether a port can be listened at."""

from __future__ import annotations

import socket
from contextlib import closing

from mcoe_model.errors import PortInUse


def check_free(host: str, port: int) -> None:
    """Raises PortInUse when somebody else listens there, or this machine does not have the address."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise PortInUse(
                f"port {port} at {host} is taken ({fault.strerror}); end what listens there, or choose "
                "another with --port"
            ) from fault
