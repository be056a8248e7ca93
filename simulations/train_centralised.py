"""Train a preset centrally on SEE-format data: where a fleet's first model comes from.

It learns from everything that the protocol does not keep for validation and test. Finished, it is scored on the test
part, and beside that on the clips that it learned from.
"""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console

from mcoe_model.errors import SettingsError
from simulations import experiment
from simulations.arms import ALL_DATA, train_by_recipe, unlike_published
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.scene import Paths
from simulations.summary import write_centralised_results

EXAMPLES = """
Examples:

  python simulations/train_centralised.py                                        # mcoe-tiny on synthetic data

  python simulations/train_centralised.py --data /data/SEE --model seen --protocol published

  python simulations/train_centralised.py --data /data/SEE --model mcoe --protocol published \\
    --imagenet resnet18.safetensors          # torchvision's weights; without them it does not start as published

  python simulations/train_centralised.py --data /data/SEE --model mcoe-edge --imagenet resnet18.safetensors

  python simulations/see_by_subject.py --base runs/first/model.safetensors       # use what it wrote as a base
"""

#: Settings that only mean something with clients.
OF_ROUNDS = (
    *("base", "rounds", "cohort", "local_epochs", "batch_size", "lr", "grid", "schedule"),
    *("train", "batch_norm", "rule", "router", "faulty", "engine", "baselines"),
    *("partition", "alpha", "balance", "local_method", "proximal"),
    *("server_optimiser", "server_lr", "server_momentum", "server_second_momentum", "server_adaptivity"),
)


def main(arguments: list[str] | None = None) -> None:
    """Prepare data, train, evaluate, write model.safetensors with its card and summary.json."""
    parser = make_parser("train_centralised.py", __doc__ or "", EXAMPLES, leave_out=OF_ROUNDS)
    request = read_request(parser, arguments)
    if request is None:
        return
    if request.settings.fold == "all":
        raise SettingsError(["--fold all needs see_by_subject.py: one model learns from one fold's subjects"])
    started = time.monotonic()
    display, paths = Display(Console(stderr=request.as_json)), Paths(request.folder)
    if caution := unlike_published(request.settings):
        display.say(f"[yellow]{caution}[/yellow]")
    with display.live():
        experiment.begin_or_resume(request.settings, request.folder, display, resumed=request.resumed)
        crew = Crew(1, display)
        try:
            if not paths.arm("all_data").exists():
                crew.start(f"train {request.settings.preset}", train_by_recipe, request.folder).result()
            model = paths.arm("all_data")
            wanted = [("all_data", part, model) for part in (*ALL_DATA, "test")]
            experiment.evaluate_all(crew, request.folder, "evaluate", wanted)
        finally:
            crew.close()
        summary = write_centralised_results(request.folder, time.monotonic() - started)
    learned, scored = summary["trained_on"], summary["all_data"]
    kind = "synthetic data, which say nothing about SEE" if summary["data"] == "synthetic" else summary["data"]
    display.console.print(
        f"{_rates(learned)} on the {learned['n']} clips it learned from, "
        f"{_rates(scored)} on {scored['n']} test clips ({kind})"
    )
    display.console.print(f"The model: [bold]{request.folder / 'model.safetensors'}[/bold]", soft_wrap=True)
    if request.as_json:
        print(json.dumps(summary))


def _rates(scored: dict[str, Any]) -> str:
    return f"WAR {100 * scored['war']:.1f} %, UAR {100 * scored['uar']:.1f} %"


if __name__ == "__main__":
    command(main)
