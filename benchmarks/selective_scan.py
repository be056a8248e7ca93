"""How much faster the chunked scan makes the whole MCO-Mamba block than the loop.

Both methods run in turn on the same inputs (500 tokens, one thread), and the ratio is the median over these pairs, so
that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from mcoe_model.networks.mco_mamba import MCOMamba
from mcoe_model.networks.selective_scan import Method

TOKENS, CHANNELS = 500, 4


def main() -> None:
    """Measure both cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9, help="measurements of each method (default 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    block = MCOMamba(CHANNELS)
    cases = {
        "forward, batch 1": compare(lambda method: _forward(block, _tokens(1), method), options.pairs),
        "forward and backward, batch 8": compare(lambda method: _train(block, _tokens(8), method), options.pairs),
    }
    if options.json:
        print(json.dumps({"torch": torch.__version__, "threads": 1, "pairs": options.pairs, "cases": cases}, indent=2))
        return
    print(f"{'MCO-Mamba, 500 tokens':32}{'loop [ms]':>12}{'chunked [ms]':>14}{'ratio':>8}")
    for case, found in cases.items():
        print(f"{case:32}{found['reference_ms']:12.1f}{found['chunked_ms']:14.2f}{found['ratio']:8.1f}")


def compare(work: Callable[[Method], None], pairs: int) -> dict[str, float]:
    """Median times [ms] of both methods, and the median of the ratios of neighbouring runs."""
    methods: tuple[Method, Method] = ("reference", "chunked")
    for method in methods:
        work(method)  # the first run allocates
    times = [[_milliseconds(work, method) for method in methods] for _ in range(pairs)]
    return {
        "reference_ms": statistics.median(reference for reference, _ in times),
        "chunked_ms": statistics.median(chunked for _, chunked in times),
        "ratio": statistics.median(reference / chunked for reference, chunked in times),
    }


def _milliseconds(work: Callable[[Method], None], method: Method) -> float:
    begin = time.perf_counter()
    work(method)
    return 1000 * (time.perf_counter() - begin)


def _tokens(batch: int) -> torch.Tensor:
    return torch.randn(2, batch, TOKENS, CHANNELS)  # (2, B, L, d)


def _forward(block: MCOMamba, tokens: torch.Tensor, method: Method) -> None:
    with torch.inference_mode():
        block(*tokens, method=method)


def _train(block: MCOMamba, tokens: torch.Tensor, method: Method) -> None:
    block.zero_grad()
    frame, event = block(*tokens, method=method)  # (B, L, d) twice
    (frame.square().sum() + event.square().sum()).backward()


if __name__ == "__main__":
    main()
