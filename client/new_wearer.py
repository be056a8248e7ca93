"""One wearer goes and the next begins: with the folder go phones and keys, and another has none of them."""

from __future__ import annotations

from client import keys
from client.keys import DeviceKey
from client.leaving import Way
from client.page.pairing import Pairing
from client.wearers import Wearers, check_code


def close_wearer(wearers: Wearers, way: Way) -> None:
    """Erase the wearer, as `Wearers.close`, and forget the phones that were theirs. Raises DataMissing without one."""
    Pairing(wearers.folder / "page").unpair()  # first: whenever this ends, no phone sees the next wearer's page
    wearers.close(way)


def check_new(code: str, passphrase: str | None) -> None:
    """Whether a wearer can be begun with these. Raises DataInvalid."""
    check_code(code)
    if passphrase is not None:
        keys.check_passphrase(passphrase)


def new_wearer(wearers: Wearers, code: str, passphrase: str | None) -> tuple[DeviceKey, str | None]:
    """A folder with a new device key, and the recovery key of one with a passphrase: both, or nobody wears it.

    What somebody without a code has in the wearable's folder, enrolled or imported before the first visit, is theirs.
    Raises OutputExists, and DataInvalid for a bad code or a short passphrase.
    """
    if wearers.current is None and wearers.found:
        return _adopted(wearers, code, passphrase)
    path = wearers.new(code).device_key
    return (keys.make_keyfile(path), None) if passphrase is None else keys.make_locked(path, passphrase)


def _adopted(wearers: Wearers, code: str, passphrase: str | None) -> tuple[DeviceKey, str | None]:
    """The same for somebody without a code. The key comes first: whenever this ends, it can be begun again."""
    check_new(code, passphrase)
    path = wearers.paths.device_key
    if path.exists() and keys.needs_passphrase(path):  # begun by a process that died; nothing was sealed
        path.unlink()
    made: tuple[DeviceKey, str | None]
    if passphrase is None:
        made = keys.read_keyfile(path) if path.exists() else keys.make_keyfile(path), None
    else:
        made = keys.put_passphrase(path, passphrase) if path.exists() else keys.make_locked(path, passphrase)
    wearers.adopt(code)
    return made
