"""The names of cameras, and what the module that everybody imports must not bring along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from client.cameras.source import DeviceName, dv_processing, open_source, parse_device
from mcoe_model.errors import CameraMissing, MissingExtra, SettingsError


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("none", DeviceName("none")),
        ("davis346", DeviceName("davis346")),
        ("davis346:00000142", DeviceName("davis346", serial="00000142")),
        ("davis346+signals", DeviceName("davis346", signals=True)),
        ("davis346+signals:00000142", DeviceName("davis346", serial="00000142", signals=True)),
        ("recording:/a/b:c.aedat4", DeviceName("recording", path=Path("/a/b:c.aedat4"))),
        ("network:/run/camera", DeviceName("network", path=Path("/run/camera"))),
        ("network:sockets", DeviceName("network", path=Path("sockets"))),
        ("network:./a:1", DeviceName("network", path=Path("a:1"))),
        ("network:127.0.0.1:7000", DeviceName("network", host="127.0.0.1", port=7000)),
        ("network:localhost:7000", DeviceName("network", host="localhost", port=7000)),
        ("network:[::1]:7000", DeviceName("network", host="::1", port=7000)),
        ("network:10.0.0.7:7000:/keys", DeviceName("network", host="10.0.0.7", port=7000, keys=Path("/keys"))),
        ("simulated", DeviceName("simulated", seed=0)),
        ("simulated:42", DeviceName("simulated", seed=42)),
    ],
)
def test_devices_are_read(text: str, device: DeviceName) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text",
    [
        *("", "camera", "none:1", "davis346:", "davis346+signals:", "davis346+", "DAVIS346", "recording", "recording:"),
        *("simulated:", "simulated:x", "simulated:-1", "simulated:1:2", "simulated:²"),
        *("network", "network:", "network::7000", "network:127.0.0.1:", "network:127.0.0.1:x", "network:127.0.0.1:0"),
        "network:127.0.0.1:65533",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_device(text)


@pytest.mark.parametrize("host", ["10.0.0.7", "camera.local", "0.0.0.0", "[fe80::1]"])
def test_another_machine_is_reached_over_tls_only(host: str) -> None:
    with pytest.raises(SettingsError, match="over TLS only; write network:HOST:PORT:DIR"):
        parse_device(f"network:{host}:7000")
    assert parse_device(f"network:{host}:7000:keys").keys == Path("keys")


def test_every_fault_of_a_network_camera_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refusal:
        parse_device("network:10.0.0.7:99999")
    assert len(refusal.value.faults) == 2


def test_no_camera_cannot_be_opened() -> None:
    with pytest.raises(CameraMissing, match="--device"):
        open_source("none")


def test_the_protocol_brings_neither_dv_processing_nor_torch() -> None:
    code = "import sys, client.cameras.source; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "client.cameras.source" in loaded
    assert not {"dv_processing", "torch", "server", "flwr"} & set(loaded)


def test_without_dv_processing_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mcoe\[capture\]'"):
        dv_processing()
