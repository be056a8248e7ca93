"""On what kind of file system a place lies."""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
#: File systems whose bytes leave this device.
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "davfs", "glusterfs", "lustre", "ncpfs"}
#: The largest file, in bytes, of those that have a limit one meets: sticks are often sold with these.
LARGEST_FILE = {"vfat": (4 << 30) - 1, "msdos": (4 << 30) - 1}
#: What stands for them behind FUSE: everything there but what is known to be a disk.
_FUSE_DISKS = {"fuseblk", "fuse.exfat", "fuse.ntfs", "fuse.ntfs-3g", "fuse.overlayfs", "fuse.fuse-overlayfs"}


def filesystem(place: Path, mounts: Path = MOUNTS) -> str:
    """The kind of the file system that this place, which need not exist yet, would be on, such as ext4 or nfs4."""
    lines = [line.split() for line in mounts.read_text().splitlines()]
    points = [(Path(_unescaped(point)), kind) for _, point, kind, *_ in lines]
    over = [(len(point.parts), order) for order, (point, _) in enumerate(points) if place.is_relative_to(point)]
    return points[max(over)[1]][1] if over else ""  # of two mounts at one point the later one shows


def is_remote(kind: str) -> bool:
    """Whether this kind of file system lies on another machine, as far as that is known."""
    return kind in REMOTE or (kind.startswith("fuse") and kind not in _FUSE_DISKS)


def _unescaped(point: str) -> str:
    """A mount point as it is called: the kernel writes a space as \\\\040."""
    return point.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
