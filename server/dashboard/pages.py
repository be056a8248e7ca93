"""The operator's pages. The only place where an alias, or how one client's clips were routed, is shown."""

from __future__ import annotations

import hmac
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from mcoe_model.errors import DataMissing
from mcoe_model.names import EMOTIONS, LIGHTINGS
from server.attention import needs
from server.dashboard import charts
from server.dashboard.context import Dashboard
from server.dashboard.experts import DRIFT_ALARM, DRIFT_CHOICES, WINDOW_ROUNDS
from server.dashboard.health import SOON_DAYS
from server.dashboard.live import Live, changes, live_round
from server.dashboard.rendering import Page, page_of, render
from server.dashboard.scores import version_scores
from server.registry import ModelRow, day_of, utc_now
from server.registry.tables import ENROLLED

CLIENTS_PER_PAGE = 100
ROUNDS_PER_PAGE = 25
ROUTINGS_PER_PAGE = 50
VERSIONS_PER_PAGE = 30
#: Versions in the chart of accuracy; older ones are on the table's later pages.
VERSIONS_DRAWN = 100
#: The heat map's darkest cell is this many times an even share.
DARKEST = 4
_FORM_BYTES = 4096
#: Where another experiment's page of the same kind is; that of one round or version is another experiment's no more.
_PLACES = {"rounds": "/rounds", "round": "/rounds", "models": "/models", "rollback": "/models", "experts": "/experts",
           "server": "/server"}  # fmt: skip

PageNumber = Annotated[int, Query(ge=1)]


def page_routes(dashboard: Dashboard) -> APIRouter:
    """Every page, the events of the live round, and the rollback."""
    routes = APIRouter(default_response_class=HTMLResponse)
    registry, queries, root = dashboard.registry, dashboard.queries, dashboard.root

    def show(name: str, **content: Any) -> HTMLResponse:
        return HTMLResponse(render(f"{name}.html.j2", **_frame(dashboard, name), **content))

    @routes.get("/")
    def fleet(page: PageNumber = 1, order: Literal["need", "id"] = "need") -> HTMLResponse:
        clients = registry.clients()
        needed = needs(clients, day_of(utc_now()))
        if order == "need":
            clients.sort(key=lambda one: -len(needed.get(one.id, ())))  # else by id, as they come
        shown: Page[Any] = page_of(clients, page, CLIENTS_PER_PAGE)
        return show(
            "fleet",
            states=Counter(client.state for client in clients),
            pending=sum(client.examples or 0 for client in clients if client.state == ENROLLED),
            clients=shown,
            needs=needed,
            order=order,
        )

    @routes.get("/rounds")
    def rounds(before: int | None = None) -> HTMLResponse:
        return show("rounds", live=live_round(queries), before=before, **history(before))

    def history(before: int | None = None) -> dict[str, Any]:
        found = queries.attempts(ROUNDS_PER_PAGE + 1, before, ended=True)
        more = len(found) > ROUNDS_PER_PAGE
        return {"attempts": found[:ROUNDS_PER_PAGE], "older": found[ROUNDS_PER_PAGE - 1].id if more else None}

    @routes.get("/rounds/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[ServerSentEvent]:
        def live(current: Live) -> str:
            return render("live.html.j2", live=current)

        def ended() -> str:
            return render("history.html.j2", root=root, **history())

        async for event in changes(queries, live, ended, dashboard.stopping):
            yield event

    @routes.get("/rounds/{number}")
    def one_round(number: int) -> HTMLResponse:
        attempts = [(one, queries.verdicts(one.id)) for one in queries.attempts_at(number)]
        return show("round", number=number, attempts=attempts, cost=registry.round_cost(number))

    @routes.get("/models")
    def models(page: PageNumber = 1, evaluation_set: str | None = None) -> HTMLResponse:
        scored = dashboard.scores(evaluation_set)
        versions = version_scores(registry.models(), scored.by_sha256)[::-1]
        drawn = [one for one in reversed(versions[:VERSIONS_DRAWN]) if one.war is not None or one.uar is not None]
        chart = drawn and charts.lines(
            {"WAR": [one.war for one in drawn], "UAR": [one.uar for one in drawn]},
            [str(one.version) for one in drawn],
            low=0.0,
            high=1.0,
            says=f"WAR and UAR of {len(drawn)} versions on {scored.name}",
            percent=True,
        )
        return show(
            "models",
            versions=page_of(versions, page, VERSIONS_PER_PAGE),
            newest=registry.newest_model(),
            trial=registry.trial_summary(),
            notes=registry.trial_notes(),
            sets=scored.sets,
            chosen=scored.name,
            chart=chart,
            emotions=EMOTIONS,
            lightings=LIGHTINGS,
        )

    @routes.get("/models/{version}/rollback")
    def confirm(version: int) -> HTMLResponse:
        current = registry.model(registry.newest_model() or version)
        return show("rollback", model=old_model(version), current=current, form_token=dashboard.form_token)

    @routes.post("/models/{version}/rollback")
    async def roll_back(version: int, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES:
                return error_page(dashboard, "the form is too long", 413)
        shown = parse_qs(body.decode("latin-1")).get("form_token", [""])[0]
        if not hmac.compare_digest(shown.encode(), dashboard.form_token.encode()):
            return error_page(dashboard, "this form is not the dashboard's; open the page again", 403)
        old_model(version)
        registry.release_again(version)
        return RedirectResponse(f"{root}/models", 303)

    def old_model(version: int) -> ModelRow:
        """A version whose file is there."""
        model = registry.model(version)
        if not dashboard.artifacts.path(model.sha256).is_file():
            raise DataMissing(f"the file of version {version} is gone; restore it from a backup")
        return model

    @routes.get("/experts")
    def experts(page: PageNumber = 1, last: bool = False) -> HTMLResponse:
        use = dashboard.expert_use()
        if use is None:
            return show("experts", use=None)
        count = len(use.recent)
        load = charts.bars(
            use.last if last else use.recent,
            [str(expert) for expert in range(count)],
            even=1 / count,
            says="Share of the routed choices by expert",
        )
        spread = charts.lines(
            {"Entropy": use.entropy[::-1]},
            [str(number) for number in use.rounds[::-1]],
            low=0.0,
            high=math.log2(count) or 1.0,
            says="Entropy of the expert load by round, in bits",
        )
        return show(
            "experts",
            use=use,
            last=last,
            load=load,
            spread=spread,
            even=math.log2(count),
            full=min(1.0, DARKEST / count),
            aliases=queries.aliases(),
            rows=page_of(use.by_client, page, ROUTINGS_PER_PAGE),
            window=WINDOW_ROUNDS,
            alarm=DRIFT_ALARM,
            choices=DRIFT_CHOICES,
        )

    @routes.get("/server")
    def server() -> HTMLResponse:
        return show("server", health=dashboard.health(), examined=dashboard.doctor.latest(), soon=SOON_DAYS)

    return routes


def error_page(dashboard: Dashboard, says: str, code: int) -> HTMLResponse:
    """A page that says what is wrong."""
    return HTMLResponse(render("error.html.j2", **_frame(dashboard, ""), says=says), code)


def _frame(dashboard: Dashboard, tab: str) -> dict[str, Any]:
    """What every page shows around its content."""
    return {
        "experiment": dashboard.registry.experiment,
        "root": dashboard.root,
        "roots": dashboard.roots,
        "tab": tab,
        "place": _PLACES.get(tab, "/"),
    }
