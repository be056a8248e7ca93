"""The first bytes that the sender of one of dv-processing's network streams says."""

from __future__ import annotations

import socket

from client.said import Said
from mcoe_model.errors import CameraMissing

#: A camera that does not answer within this time is not there [s].
PATIENCE_S = 5.0
#: A greeting begins with its length and its kind, four bytes each, and this.
_MARK, _AT, _BYTES = b"IOHE", 8, 12


def greeting(peer: socket.socket) -> bytes:
    """The greeting's beginning. Raises CameraMissing when the peer says something else, or nothing.

    dv-processing would wait for it for ever.
    """
    said = b""
    try:
        while len(said) < _BYTES and (more := peer.recv(_BYTES - len(said))):
            said += more
    except OSError:
        said = b""
    if said[_AT:] != _MARK:
        peer.close()
        says = "what answers there is no camera, or one that asks for TLS; see that the address is right"
        raise CameraMissing(Said("camera.stranger", says))
    return said
