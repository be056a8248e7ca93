"""The update that a folder of labelled clips makes of a model, as a client's clips would. For a server that compares.

    python -m mcoe_model.learning.trusted_update MODEL DATA CACHE TARGET

reads the round's train task as JSON from standard input and writes the update's tensors to TARGET. A process of its
own, for programs that must not load torch. The same model, clips and task give the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mcoe_model.data.cache import open_clips
from mcoe_model.errors import McoeError
from mcoe_model.files import write_bytes
from mcoe_model.learning.features import every_clip
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import PictureSamples, Samples
from mcoe_model.learning.weights import load_model, model_specs, tensors_of
from mcoe_model.model_file import Tensors
from mcoe_model.protocol import TrainTask
from mcoe_model.tensors import pack
from mcoe_model.update import make_update, manifest
from mcoe_model.workers import end_with_parent, one_thread


def trusted_update(model_file: Path, data: Path, cache: Path, task: TrainTask) -> Tensors:
    """Trained minus base over every clip of a folder in SEE's layout, without the experts that no clip used.

    Its random streams are its own: no client's name leads to them. Raises DataMissing, DataInvalid, ModelInvalid.
    """
    model, card = load_model(model_file)
    clips = open_clips(data, size=card.generation.input_size, cache=cache / "clips")
    samples: Samples
    if task.train_mode == "full":
        samples = PictureSamples(clips, tuple(range(len(clips.records))), card.generation.normalisation)
    else:
        samples = every_clip(model, card, clips, cache / "features")
    base = tensors_of(model)
    experts = fine_tune(
        model,
        samples,
        task.fine_tune,
        train_mode=task.train_mode,
        keys=(task.seed, "trusted set", task.round_number),
        expert_load=task.expert_load,
    )
    return make_update(base, tensors_of(model), manifest(model_specs(model), task.train_mode, experts))


def main() -> None:
    """Write the update, or say in one line what is wrong."""
    one_thread()
    end_with_parent()
    model_file, data, cache, target = map(Path, sys.argv[1:5])
    try:
        task = TrainTask.from_record(json.load(sys.stdin))
        write_bytes(target, pack(trusted_update(model_file, data, cache, task)))
    except McoeError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
