"""The server's default rule as it would be with router statistics in four bins: what coarseness would cost in accuracy.

No server does this: bins are what it keeps once a round is over (`server/registry/coarse.py`). A simulation names it as
a rule of one's own, ``simulations/coarse_rule.py:FourBins``.
"""

from __future__ import annotations

from dataclasses import replace

from server.aggregation.block import Block
from server.aggregation.expert_weighted_mean import ExpertWeightedMean
from server.aggregation.rule import Plan, RuleSettings
from server.registry.coarse import coarsen
from server.spool import SpooledUpdate


class FourBins(ExpertWeightedMean):
    """The expert-weighted mean by gate masses of which only the bin is known."""

    name = "expert-weighted-mean-of-four-bins"

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        exact = super().plan(shared, settings, reference)
        return lambda block: exact(_coarse(block))


def _coarse(block: Block) -> Block:
    return replace(block, senders=[replace(sender, router=coarsen(sender.router)) for sender in block.senders])
