"""What a model scores on a folder of labelled clips: `python -m mcoe_model.learning.score_model MODEL DATA CACHE`.

Prints the scores as JSON on one line. A process of its own, for programs that must not load torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mcoe_model.data.cache import open_clips
from mcoe_model.errors import McoeError
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.features import every_clip
from mcoe_model.learning.metrics import Scores, score
from mcoe_model.learning.weights import load_model
from mcoe_model.workers import end_with_parent, one_thread


def score_model(model_file: Path, data: Path, cache: Path) -> Scores:
    """Scores over every clip of a folder in SEE's layout. Raises DataMissing, DataInvalid, ModelInvalid."""
    model, card = load_model(model_file)
    clips = open_clips(data, size=card.generation.input_size, cache=cache / "clips")
    said = evaluate(model, every_clip(model, card, clips, cache / "features"))
    subjects = [record.subject for record in clips.records]
    lightings = [record.lighting for record in clips.records]
    return score(said.labels, said.predicted(), subjects, lightings, mean_softmax=said.mean_softmax())


def main() -> None:
    """Print the scores, or one line of what is wrong."""
    one_thread()
    end_with_parent()
    try:
        print(json.dumps(score_model(*map(Path, sys.argv[1:4])).to_json()))
    except McoeError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
