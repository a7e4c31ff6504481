"""Grafana's dashboard asks for metrics that /metrics serves, and for each as what it is."""

from __future__ import annotations

import json
import re

from tests.api.models.scripted_source import ScriptedSource
from tests.api.serving import (
    Server,
    StepwiseClient,
    run,
    says,
    serving_engine,
    serving_models,
)
from tests.deploy.commands import DEPLOY
from tests.scripted_runner import ScriptedEngine

DASHBOARD = json.loads((DEPLOY / "grafana" / "dllama.json").read_text())
NAME = r"(?:dllama|llamacpp):\w+"
OVER_TIME = ("rate(", "increase(")


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


async def kinds_at(server: Server, question: dict[str, object]) -> dict[str, str]:
    """The metrics of a server that has answered something, and their kinds."""
    assert (await server.post("/v1/completions", question)).status == 200
    text = (await server.get("/metrics")).data.decode()
    return dict(re.findall(rf"(?m)^# TYPE ({NAME}) (\w+)$", text))


def served_kinds() -> dict[str, str]:
    found: dict[str, str] = {}

    async def body() -> None:
        engine = ScriptedEngine(says("a few words"))
        async with serving_engine(engine, client=StepwiseClient) as server:
            found.update(await kinds_at(server, {"prompt": "x"}))
        async with serving_models(ScriptedSource("a").pool()) as server:
            found.update(await kinds_at(server, {"prompt": "x", "model": "a"}))

    run(body)
    return found


def test_every_metric_of_the_dashboard_is_served_and_of_the_kind_it_is_taken_for() -> None:
    kinds, asked = served_kinds(), expressions()
    assert len(asked) > 20
    for expression in asked:
        names = re.findall(NAME, expression)
        assert names and set(names) <= set(kinds), expression
        for name in names:
            before = expression.partition(name)[0]
            assert (kinds[name] == "counter") == before.endswith(OVER_TIME), (name, kinds[name])
    for variable in DASHBOARD["templating"]["list"]:
        for name in re.findall(NAME, variable["query"]):
            assert name in kinds


def test_panels_have_their_own_place_and_every_variable_exists() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    own = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used == own
