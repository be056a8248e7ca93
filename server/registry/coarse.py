"""Router statistics in four bins, for experiments that do not keep how exactly a wearer's clips were routed.

What counts is an expert's share compared with the share 1/E that each of E experts would have if all were used alike:

    bin          share                   kept as
    rarely       [0, 1/2) of 1/E         0.25 / E
    below        [1/2, 1) of 1/E         0.75 / E
    above        [1, 2) of 1/E           1.5 / E
    mostly       2/E and more            3 / E, at most 1

Both the share of the gate mass and the share of the routed choices are binned. What is kept no longer sums to the
number of clips, so nothing is aggregated with it.
"""

from __future__ import annotations

from mcoe_model.router_statistics import RouterStatistics

#: Upper edge of each bin but the last, and what stands for a bin, in units of 1/E.
_EDGES = (0.5, 1.0, 2.0)
_KEPT = (0.25, 0.75, 1.5, 3.0)


def coarsen(exact: RouterStatistics) -> RouterStatistics:
    """The same statistics with every share replaced by its bin's."""
    experts, choices = len(exact.routed), exact.examples * exact.top_k
    return RouterStatistics(
        exact.examples,
        exact.top_k,
        tuple(round(_kept(count, choices, experts)) for count in exact.routed),
        tuple(_kept(mass, exact.examples, experts) for mass in exact.gate_mass),
    )


def _kept(part: float, whole: int, experts: int) -> float:
    relative = part / whole * experts if whole else 0.0
    return whole * min(1.0, _KEPT[sum(relative >= edge for edge in _EDGES)] / experts)
