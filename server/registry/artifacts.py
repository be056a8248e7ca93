"""Model files, each named by the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mcoe_model.errors import ModelInvalid
from mcoe_model.files import write_bytes
from mcoe_model.model_file import ModelCard, Tensors, file_sha256, model_bytes, read_model


class Artifacts:
    """A folder of model files. A file is complete or absent; reading checks its hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.safetensors"

    def put(self, tensors: Tensors, card: ModelCard) -> str:
        """Store a model durably; returns its SHA-256. The same model again changes nothing. Raises DiskFull."""
        content = model_bytes(tensors, card)
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.path(sha256).exists():
            write_bytes(self.path(sha256), content)
        return sha256

    def get(self, sha256: str) -> tuple[Tensors, ModelCard]:
        """Tensors and card. Raises DataMissing or ModelInvalid when the file is gone or its bytes have changed."""
        model = read_model(self.path(sha256))
        if file_sha256(self.path(sha256)) != sha256:
            raise ModelInvalid(
                f"{self.path(sha256)} no longer has the bytes it is named after; restore it from a backup"
            )
        return model
