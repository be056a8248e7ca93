"""Make a model file of a checkpoint that the authors of a model published, or that their own code wrote.

Nothing in a .pth file is run: only tensors are read from it. The model's card keeps the file's hash and label order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mcoe_model.errors import OutputExists, SettingsError
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import SEE_NORMALISATION, Generation, ModelCard, file_sha256, write_model
from mcoe_model.networks import PRESETS, build, find_config, from_published, read_state_dict
from mcoe_model.networks.presets import SEEN_FORM
from simulations.command import command

EXAMPLES = """
The order of labels is the list `labels` of the annotation file that the checkpoint was trained with.

Example:

  python simulations/import_published.py save_163.pth --model seen \\
    --labels happiness,sadness,angry,disgust,surprise,fear,neutral --out seen.safetensors

  python simulations/see_by_subject.py --model seen --base seen.safetensors --data /data/SEE
"""


def main(arguments: list[str] | None = None) -> None:
    """Read the checkpoint, check every name, write the model file."""
    parser = argparse.ArgumentParser(
        prog="import_published.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="the .pth or .safetensors file")
    parser.add_argument("--model", required=True, help=f"preset of the published structure: {_known()}")
    parser.add_argument("--labels", required=True, help="the emotions in the checkpoint's order, with commas between")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model file to write")
    asked = parser.parse_args(arguments)
    if find_config(asked.model) is None:
        raise SettingsError([f"--model must be one of {_known()}, not {asked.model!r}"])
    if asked.out.exists():
        raise OutputExists(f"{asked.out} exists already; name another with --out")
    labels = [label.strip() for label in asked.labels.split(",")]
    import_published(asked.checkpoint, asked.model, labels, asked.out)
    print(f"The model: {asked.out}")


def import_published(checkpoint: Path, preset: str, labels: list[str], target: Path) -> None:
    """Write the model of this preset with a checkpoint's weights, its classes in our order.

    Raises DataMissing, ModelInvalid with the names that are unknown or missing, SettingsError for the labels.
    """
    model = build(preset, seed=0)
    from_published(read_state_dict(checkpoint), model, label_order=labels)
    tensors, config = tensors_of(model), model.config
    generation = Generation(
        preset, backbone_sha256(tensors), config.input_size, SEE_NORMALISATION, top_k=config.top_k
    )
    source = {"source": checkpoint.name, "source_sha256": file_sha256(checkpoint), "label_order": labels}
    write_model(target, tensors, ModelCard(generation, "published checkpoint", trained_on=source))


def _known() -> str:
    return f"{', '.join(PRESETS)}; {SEEN_FORM}"


if __name__ == "__main__":
    command(main)
