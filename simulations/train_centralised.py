"""Train a preset centrally on SEE-format data: where a fleet's first model comes from.

It learns from everything that the protocol does not keep for validation and test, and is scored once on the test part.
"""

from __future__ import annotations

import json
import time

from rich.console import Console

from mcoe_model.errors import SettingsError
from simulations import experiment
from simulations.arms import evaluate_model, train_by_recipe
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.scene import Paths
from simulations.summary import write_centralised_results

EXAMPLES = """
Examples:

  python simulations/train_centralised.py                                        # mcoe-tiny on synthetic data

  python simulations/train_centralised.py --data /data/SEE --model seen --protocol published   # or mcoe

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
    with display.live():
        experiment.begin_or_resume(request.settings, request.folder, display, resumed=request.resumed)
        crew = Crew(1, display)
        try:
            if not paths.arm("all_data").exists():
                crew.start(f"train {request.settings.preset}", train_by_recipe, request.folder).result()
            if not paths.predictions("all_data", "test").exists():
                model = paths.arm("all_data")
                crew.start_each(
                    "evaluate on test", [(evaluate_model, "all_data", "test", model)], request.folder
                )[0].result()
        finally:
            crew.close()
        summary = write_centralised_results(request.folder, time.monotonic() - started)
    scored = summary["all_data"]
    kind = "synthetic data, which say nothing about SEE" if summary["data"] == "synthetic" else summary["data"]
    display.console.print(
        f"WAR {100 * scored['war']:.1f} %, UAR {100 * scored['uar']:.1f} % on {scored['n']} test clips ({kind})"
    )
    display.console.print(f"The model: [bold]{request.folder / 'model.safetensors'}[/bold]", soft_wrap=True)
    if request.as_json:
        print(json.dumps(summary))


if __name__ == "__main__":
    command(main)
