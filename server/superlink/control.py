"""The SuperLink's control interface, on loopback: who may connect, and what runs."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor


class Control:
    """The SuperLink's control interface, on loopback."""

    def __init__(self, address: str) -> None:
        interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="flwr-cli")]
        self._client = ControlHttpClient.from_server_address(address, True, None, interceptors)

    def close(self) -> None:
        self._client.close()

    def nodes(self) -> dict[str, int]:
        """The node id of every registered public key (PEM)."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {node.public_key.decode(): node.node_id for node in found}

    def register(self, public_key: str) -> int:
        """Let the holder of this key (PEM) connect; returns its node id, also when it was registered before."""
        known = self.nodes().get(public_key)
        if known is not None:
            return known
        try:
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key.encode())).node_id)
        except httpx.HTTPStatusError:
            known = self.nodes().get(public_key)  # another process was faster
            if known is None:
                raise
            return known

    def start_run(self) -> int:
        """Start a Flower run; what it runs is whatever is installed, on either side. Returns its id."""
        from flwr.cli.build import build_fab_from_files  # half a second, which no other command should take

        content, *_ = build_fab_from_files({"pyproject.toml": _BUNDLE})
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        return int(self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab), federation="")).run_id)


#: Flower wants a bundle with every run. Ours names no code: nothing in it is ever unpacked or imported.
_BUNDLE = b"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fleet"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "mcoe"

[tool.flwr.app.components]
serverapp = "none:none"
clientapp = "none:none"
"""
