"""The device key: kept as it is or locked, and what hangs from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.keys import (
    DeviceKey,
    change_passphrase,
    make_keyfile,
    make_locked,
    needs_passphrase,
    read_keyfile,
    unlock,
)
from mcoe_model.errors import DataInvalid, Locked, OutputExists


def test_a_keyfile_is_read_again_and_only_by_its_user(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key = make_keyfile(path)
    assert read_keyfile(path) == key and not needs_passphrase(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_keyfile(tmp_path / "another") != key


def test_a_locked_key_opens_by_passphrase_and_by_recovery_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key, recovery = make_locked(path, "correct horse")
    assert needs_passphrase(path)
    assert unlock(path, "correct horse") == unlock(path, recovery) == unlock(path, recovery.lower()) == key
    for wrong in ("correct hors", "", "AAAA-" * 7 + "AAAA", recovery[:-1]):
        with pytest.raises(Locked):
            unlock(path, wrong)
    with pytest.raises(Locked, match="is locked"):
        read_keyfile(path)


def test_the_secret_is_neither_on_the_disk_nor_printed(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key, recovery = make_locked(path, "correct horse")
    stored = path.read_text()
    for secret in (key.secret.hex(), "correct horse", recovery, recovery.replace("-", "")):
        assert secret not in stored
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)


def test_another_passphrase_takes_the_place_of_the_first_and_the_recovery_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key, recovery = make_locked(path, "correct horse")
    change_passphrase(path, recovery, "battery staple")
    assert unlock(path, "battery staple") == unlock(path, recovery) == key
    with pytest.raises(Locked):
        unlock(path, "correct horse")


def test_a_short_passphrase_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="at least 8"):
        make_locked(tmp_path / "device.key", "short")
    assert not list(tmp_path.iterdir())


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key = make_keyfile(path)
    for again in (lambda: make_keyfile(path), lambda: make_locked(path, "correct horse")):
        with pytest.raises(OutputExists):
            again()
    assert read_keyfile(path) == key


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"kind": "keyfile"}', b'{"kind": "x", "key": "AA=="}',
                                     b'{"kind": "keyfile", "key": "?"}', b'{"kind": "keyfile", "key": 3}'])  # fmt: skip
def test_a_spoilt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.key"
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match="cannot be read"):
        read_keyfile(path)


def test_a_wrapped_key_that_was_changed_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    make_locked(path, "correct horse")
    stored = json.loads(path.read_text())
    stored["by_passphrase"], stored["by_recovery"] = stored["by_recovery"], stored["by_passphrase"]
    path.write_text(json.dumps(stored))
    with pytest.raises(Locked):
        unlock(path, "correct horse")


def test_data_keys_open_with_their_device_key_and_context_only() -> None:
    key, other = DeviceKey(bytes(32)), DeviceKey(bytes([1]) * 32)
    wrapped = key.wrap(b"k" * 32, "session 1")
    assert key.unwrap(wrapped, "session 1") == b"k" * 32
    for device, context in ((other, "session 1"), (key, "session 2")):
        with pytest.raises(DataInvalid, match="cannot be opened"):
            device.unwrap(wrapped, context)


def test_keys_of_different_purposes_differ_and_stay() -> None:
    key = DeviceKey(bytes(32))
    assert key.derive("outbox") == DeviceKey(bytes(32)).derive("outbox") != key.derive("features")
    assert len(key.derive("outbox")) == 32
