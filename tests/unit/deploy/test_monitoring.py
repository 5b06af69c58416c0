"""Alert rules and the dashboard speak of metrics, labels and values that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from broker import metrics
from tests.fixtures.labels import VALUES

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
FROM_THE_SCRAPE = {"job", "instance", "le"}
DURATION = re.compile(r"[0-9]+[smhd]")
SELECTOR = re.compile(r"([a-z_]+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
USE = re.compile(r"((?:credbroker|process)_[a-z_]+)(?:\{([^}]*)\})?")


def known() -> dict[str, set[str]]:
    """Return the labels of every sample by its name."""
    found: dict[str, set[str]] = {}
    collectors = set(metrics.REGISTRY._collector_to_names)
    for collector in collectors:
        for family in collector.collect():
            labels = set(collector._labelnames) if isinstance(collector, MetricWrapperBase) else set()
            found |= {family.name + suffix: labels for suffix in SUFFIXES[family.type]}
    return found


KNOWN = known()
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expressions_speak_of_what_exists(expression: str) -> None:
    uses = USE.findall(expression)
    assert uses
    for name, selectors in uses:
        assert name in KNOWN, name
        for label, _, pattern in SELECTOR.findall(selectors):
            assert label in KNOWN[name], (name, label)
            for choice in [pattern] if "(" in pattern else pattern.split("|"):
                assert any(re.fullmatch(choice, value) for value in VALUES[label]), (label, choice)
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    labels = set().union(*(KNOWN[name] for name, _ in uses))
    assert grouped <= labels | FROM_THE_SCRAPE
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rules_say_for_whom_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Credbroker[A-Za-z]+", rule["alert"])
    assert DURATION.fullmatch(rule["for"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert rule["annotations"]["runbook"].endswith((".", "?"))


def test_names_are_used_once() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_overlap_and_fit() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_metric_is_watched_and_documented() -> None:
    text = (DEPLOY.parent / "docs" / "observability.md").read_text()
    ours = {name.removesuffix("_bucket") for name in KNOWN if name.startswith("credbroker_")}
    ours = {name for name in ours if not name.endswith(("_count", "_sum"))}
    assert {name for name in ours if f"`{name}" not in text} == set()
    shown = "".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert {name for name in ours if name not in shown + str(RULES)} == set()
    assert {rule["alert"] for rule in RULES if rule["alert"] not in text} == set()
