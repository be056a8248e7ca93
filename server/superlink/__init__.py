"""The one place on the server's side that touches private modules of Flower, pinned to flwr==1.41.0.

A test fails by name when Flower moves one of them.
"""

#: What a server's processes must find in their environment before they import Flower: it calls nobody at home.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
