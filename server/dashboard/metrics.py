"""The fleet's numbers in Prometheus' text format 0.0.4. They name no client.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.attention import REASONS
from server.dashboard.attempts import Attempt
from server.dashboard.experts import FEWEST_CLIENTS, ExpertUse
from server.dashboard.health import Health
from server.dashboard.queries import Totals

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class _Metric:
    """One metric; ``values`` by the value of its label, or under "" without one."""

    name: str
    kind: str
    says: str
    values: Mapping[str, float]
    label: str = ""


def metrics_text(
    totals: Totals,
    current: Attempt | None,
    last_published: int,
    use: ExpertUse | None,
    health: Health,
    needs: Sequence[Sequence[str]],
) -> str:
    """Everything that /metrics says. The experts' use by fewer than `FEWEST_CLIENTS` clients are left out.

    ``needs``: of each enrolled wearable that said how it is, why an operator should look (`REASONS`).
    """
    why = Counter(reason for of_one in needs for reason in of_one)
    found = [
        _Metric("mcoe_clients", "gauge", "Clients by state.", totals.clients, "state"),
        _Metric("mcoe_clients_with_health", "gauge", "Enrolled clients that said how they are.", {"": len(needs)}),
        _Metric("mcoe_clients_needing_attention", "gauge", "Enrolled clients that an operator should look at.",
                {"": sum(map(bool, needs))}),
        _Metric("mcoe_attention", "gauge", "Enrolled clients by why an operator should look.",
                {reason: why[reason] for reason in REASONS}, "why"),
        _Metric("mcoe_rounds", "gauge", "Attempts at rounds by state.", totals.rounds, "state"),
        _Metric("mcoe_replies", "gauge", "Replies of all rounds by verdict.", totals.replies, "verdict"),
        _Metric("mcoe_bytes", "gauge", "Bytes of tensors exchanged.",
                {"down": totals.bytes_down, "up": totals.bytes_up}, "direction"),
        _Metric("mcoe_round_published", "gauge", "Number of the last published round.", {"": last_published}),
        _Metric("mcoe_round_open", "gauge", "Whether a round is under way.", {"": float(current is not None)}),
        _Metric("mcoe_round_awaited", "gauge", "Clients that the open round waits for.",
                {"": current.awaited if current else 0}),
        _Metric("mcoe_disk_free_bytes", "gauge", "Free disk of the data folder.", {"": health.disk_free}),
        _Metric("mcoe_stored_bytes", "gauge", "Bytes on disk.",
                {"spool": health.spool_bytes, "models": health.models_bytes, "registry": health.registry_bytes,
                 "flower": health.flower_bytes}, "what"),
        _Metric("mcoe_certificate_days_left", "gauge", "Days until a certificate expires.",
                {one.name: one.days for one in health.certificates if one.days is not None}, "file"),
    ]  # fmt: skip
    if use:
        found.append(_Metric("mcoe_drift_alarms", "gauge", "Clients whose routing drifts.", {"": len(use.alarms)}))
    if use and len(use.by_client) >= FEWEST_CLIENTS:
        load = {str(expert): share for expert, share in enumerate(use.recent)}
        found += [
            _Metric("mcoe_dead_experts", "gauge", "Experts that no recent clip was routed to.", {"": len(use.dead)}),
            _Metric("mcoe_expert_load", "gauge", "Share of the recent rounds' choices.", load, "expert"),
        ]
    return "".join(_lines(metric) for metric in found)


def _lines(metric: _Metric) -> str:
    lines: Sequence[str] = [
        f"# HELP {metric.name} {metric.says}",
        f"# TYPE {metric.name} {metric.kind}",
        *(
            f"{metric.name}{_label(metric.label, name)} {float(value)}"
            for name, value in sorted(metric.values.items())
        ),
    ]
    return "\n".join(lines) + "\n"


def _label(label: str, name: str) -> str:
    return f'{{{label}="{name}"}}' if label else ""
