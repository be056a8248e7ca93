"""Connections to a camera on another machine: verified TLS on one side, UNIX sockets in a private folder on the other.

A process of its own, started by `network`: dv-processing's reader holds Python's lock while it waits for a greeting,
so that nothing in its own process could bring it one. ``python -m client.cameras.secured HOST PORT KEYS FOLDER`` says
which streams there are, or what is wrong, in one line of JSON, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from pathlib import Path

from client.cameras.greeting import PATIENCE_S, greeting
from client.cameras.source import STREAMS
from client.child_process import no_core_dump
from client.said import Said, reason
from mcoe_model.errors import CameraMissing
from mcoe_model.workers import end_with_parent

#: In the folder with keys: who signed the camera's certificate, and this side's own certificate and key.
AUTHORITY, CERTIFICATE, KEY = "authority.pem", "certificate.pem", "key.pem"


def main(host: str, port: int, keys: Path, folder: Path) -> None:
    """Connect, say so, and hand on what comes until every stream is over."""
    end_with_parent()
    no_core_dump()
    threads = {}
    try:
        for number, stream in enumerate(STREAMS):
            with contextlib.suppress(ConnectionRefusedError):
                secured = _connected(host, port + number, keys)
                said = greeting(secured)
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(folder / stream))
                listener.listen(1)
                threads[stream] = threading.Thread(target=_hand_on, args=(secured, said, listener))
    except CameraMissing as fault:
        print(json.dumps(reason(fault)), flush=True)
        return
    for thread in threads.values():
        thread.start()
    print(json.dumps({"streams": list(threads)}), flush=True)


def _connected(host: str, port: int, keys: Path) -> ssl.SSLSocket:
    """A connection to a camera that has proved who it is. Raises ConnectionRefusedError, CameraMissing."""
    try:
        plain = socket.create_connection((host, port), timeout=PATIENCE_S)
    except ConnectionRefusedError:
        raise
    except OSError as fault:
        says = "{host} does not answer; is the camera on, and in this network?"
        raise CameraMissing(Said("camera.away", says, host=host)) from fault
    try:
        context = ssl.create_default_context(cafile=str(keys / AUTHORITY))
        context.load_cert_chain(keys / CERTIFICATE, keys / KEY)
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as fault:
        why = getattr(fault, "reason", None) or "no TLS"
        says = "{host} is not taken for the camera: {why}; see that its certificate is right"
        raise CameraMissing(Said("camera.not_trusted", says, host=host, why=str(why))) from fault


def _hand_on(secured: ssl.SSLSocket, said: bytes, listener: socket.socket) -> None:
    """Give what comes to the one that connects, until either side is gone."""
    with secured, listener, contextlib.suppress(OSError):
        secured.settimeout(None)
        listener.settimeout(PATIENCE_S)
        reader, _ = listener.accept()
        with reader:
            reader.settimeout(None)
            reader.sendall(said)
            while data := secured.recv(1 << 18):
                reader.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
