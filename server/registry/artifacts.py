"""Model files and optimisers' moments, each named by the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.files import write_bytes
from mcoe_model.model_file import ModelCard, Tensors, file_sha256, model_bytes, read_model


class Artifacts:
    """A folder of files. A file is complete or absent; reading checks its hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.safetensors"

    def stored(self) -> frozenset[str]:
        """The SHA-256 of every file that is there."""
        return frozenset(path.stem for path in self.folder.glob("*.safetensors"))

    def put(self, tensors: Tensors, card: ModelCard) -> str:
        """Store a model durably; returns its SHA-256. The same model again changes nothing. Raises DiskFull."""
        return self._put(model_bytes(tensors, card))

    def get(self, sha256: str) -> tuple[Tensors, ModelCard]:
        """Tensors and card. Raises DataMissing or ModelInvalid when the file is gone or its bytes have changed."""
        model = read_model(self.path(sha256))
        if file_sha256(self.path(sha256)) != sha256:
            raise self._changed(sha256)
        return model

    def put_moments(self, moments: Tensors, optimiser: str) -> str:
        """Store the moments of this optimiser durably; returns their SHA-256. Raises DiskFull."""
        ordered = {name: np.asarray(moments[name], order="C") for name in sorted(moments)}
        return self._put(bytes(save(ordered, metadata={"optimiser": optimiser})))

    def get_moments(self, sha256: str) -> tuple[Tensors, str]:
        """Moments and the optimiser that they are of. Raises DataMissing or ModelInvalid as `get`."""
        path = self.path(sha256)
        if not path.is_file():
            raise DataMissing(f"the optimiser's moments {path} are gone; restore them from a backup")
        if file_sha256(path) != sha256:
            raise self._changed(sha256)
        with safe_open(path, "np") as file:
            return dict(load_file(path)), str(file.metadata()["optimiser"])

    def _put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.path(sha256).exists():
            write_bytes(self.path(sha256), content)
        return sha256

    def _changed(self, sha256: str) -> ModelInvalid:
        return ModelInvalid(f"{self.path(sha256)} no longer has the bytes it is named after; restore it from a backup")
