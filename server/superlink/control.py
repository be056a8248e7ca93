"""The SuperLink's control interface, on loopback: who may connect, and what runs."""

from __future__ import annotations

import hashlib
from typing import Any

from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
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
        return {node.public_key.decode(): node.node_id for node in found if node.status != "unregistered"}

    def retired(self) -> frozenset[str]:
        """The public keys that were unregistered: Flower takes none of them again, as long as it has its database."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return frozenset(node.public_key.decode() for node in found if node.status == "unregistered")

    def register(self, public_key: str) -> int:
        """Let the holder of this key (PEM) connect; returns its node id, also when it was registered before."""
        known = self.nodes().get(public_key)
        if known is not None:
            return known
        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key.encode())).node_id)

    def unregister(self, node_id: int) -> None:
        """Let a node connect no longer."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

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
