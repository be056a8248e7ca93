"""TensorBoard logs of a finished run: the training curve of every arm, and the rounds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from simulations.scene import Paths


def write_tensorboard(folder: Path, paths: Paths, rounds: list[dict[str, Any]]) -> None:
    """Write one log per arm (loss and accuracy by epoch) and one for the rounds. Needs the extra `tensorboard`."""
    from torch.utils.tensorboard import SummaryWriter

    for curve in sorted(paths.curve("").parent.glob("*.csv")):
        with SummaryWriter(str(folder / curve.stem)) as writer, curve.open() as file:
            for row in csv.DictReader(file):
                for measure in ("loss", "accuracy"):
                    writer.add_scalar(f"train/{measure}", float(row[measure]), int(row["epoch"]))
    if not rounds:
        return
    with SummaryWriter(str(folder / "federated")) as writer:
        for row in rounds:
            for measure in ("validation_war", "validation_uar", "loss_before", "loss_after", "bytes_up"):
                if row[measure] is not None:
                    writer.add_scalar(f"rounds/{measure}", row[measure], row["round"])
