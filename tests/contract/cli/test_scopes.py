import json
from pathlib import Path

import pytest
from credbroker.v1.scope_service_pb2 import ExplainAccessResponse, ExplainStep
from google.protobuf import json_format

from tests.contract.cli.conftest import Command
from tests.contract.cli.records import AGENT
from tests.fakes.operators import FakeBroker

DOCUMENT = """\
apiVersion: credbroker.dev/v1
kind: Scope
metadata:
  name: {name}
spec:
  description: {description}
  who:
    - spiffeId: spiffe://example.test/agents/reports
  credential:
    kind: vault_token
    rules:
      - path: secret/data/reports/*
        capabilities: [read]
  ttl:
    default: {ttl}
    max: 1h
"""


def write(folder: Path, name: str, *, description: str = "Read reports", ttl: str = "15m") -> Path:
    file = folder / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(DOCUMENT.format(name=name, description=description, ttl=ttl))
    return file


@pytest.fixture
def scopes(tmp_path: Path) -> Path:
    folder = tmp_path / "scopes"
    write(folder, "reports-a")
    write(folder / "nested", "reports-b")
    (folder / "README.md").write_text("not a scope")
    return folder


def apply(broker: Command, *words: str) -> str:
    return broker("scopes", "apply", "--no-vault", "--yes", *words).stdout


def test_new_scopes_are_created(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    shown = apply(broker, str(scopes))
    assert "+ create scope reports-a  (broker)" in shown
    assert "    +    - spiffeId: spiffe://example.test/agents/reports" in shown
    assert "2 to be created\ncreated reports-a version 1\ncreated reports-b version 1\n" in shown
    assert fake.scopes["reports-a"][0].document == (scopes / "reports-a.yaml").read_text()
    assert apply(broker, str(scopes)) == "nothing to change\n"


def test_a_plan_shows_differences_and_changes_nothing(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    apply(broker, str(scopes))
    write(scopes, "reports-a", ttl="5m")
    shown = broker("scopes", "plan", str(scopes)).stdout
    assert "~ update scope reports-a  (broker)" in shown
    assert "    -    default: 15m\n    +    default: 5m\n" in shown
    assert shown.endswith("1 to be updated\n")
    assert "reports-b" not in shown
    assert len(fake.scopes["reports-a"]) == 1


def test_plans_for_programs(broker: Command, scopes: Path) -> None:
    apply(broker, str(scopes / "reports-a.yaml"))
    found = json.loads(broker("scopes", "plan", str(scopes), "-o", "json").stdout)
    assert [(item["name"], item["action"], item["where"]) for item in found] == [
        ("reports-a", "none", "broker"),
        ("reports-b", "create", "broker"),
    ]
    lines = broker("scopes", "plan", str(scopes), "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == found


def test_others_are_read_only_where_that_is_less_work(
    broker: Command, fake: FakeBroker, scopes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(broker, str(scopes))
    write(scopes, "reports-c")
    plan = broker("scopes", "plan", str(scopes)).stdout
    assert plan.endswith("1 to be created\n")
    assert fake.lists == 0

    monkeypatch.setattr("broker.cli.scope_calls.PAGE_SIZE", 2)
    assert broker("scopes", "plan", str(scopes)).stdout == plan
    assert fake.lists == 1


def test_a_refusal_is_not_taken_for_a_scope_that_is_not_there(broker: Command, scopes: Path) -> None:
    broker.environ["CREDBROKER_TOKEN"] = "wrong"
    refused = broker("scopes", "plan", str(scopes), expect=1)
    assert refused.stdout == ""
    assert "(EVIDENCE_INVALID)" in refused.stderr


def test_updates_are_made_against_the_version_that_was_planned(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    apply(broker, str(scopes))
    write(scopes, "reports-a", ttl="5m")
    assert "updated reports-a to version 2\n" in apply(broker, str(scopes))
    write(scopes, "reports-a", ttl="6m")
    fake.meddle = True
    refused = broker("scopes", "apply", "--no-vault", "--yes", str(scopes), expect=1)
    assert "(ETAG_MISMATCH) - run `broker scopes plan` again" in refused.stderr
    assert len(fake.scopes["reports-a"]) == 2


def test_scopes_without_a_file_go_only_when_asked(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    apply(broker, str(scopes))
    only = str(scopes / "reports-a.yaml")
    assert apply(broker, only) == "nothing to change\n"
    shown = apply(broker, "--prune", only)
    assert "- delete scope reports-b  (broker)" in shown
    assert shown.endswith("deleted reports-b\n")
    assert [name for name, versions in fake.scopes.items() if versions] == ["reports-a"]


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_changed_without_a_yes(answer: str, broker: Command, fake: FakeBroker, scopes: Path) -> None:
    broker("scopes", "apply", "--no-vault", str(scopes), answer=answer, expect=1)
    assert fake.scopes == {}


def test_a_yes_applies(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    broker("scopes", "apply", "--no-vault", str(scopes), answer="y\n")
    assert sorted(fake.scopes) == ["reports-a", "reports-b"]


def test_applying_needs_vault_unless_told_otherwise(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    refused = broker("scopes", "apply", "--yes", str(scopes), expect=2)
    assert "error: VAULT_ADDR and VAULT_TOKEN are not set" in refused.stderr
    assert fake.scopes == {}
    assert "Vault's part is not shown" in broker("scopes", "plan", str(scopes)).stderr


def test_every_problem_of_every_file_is_told_and_nothing_changed(
    broker: Command, fake: FakeBroker, scopes: Path
) -> None:
    write(scopes, "wrong-ttl", ttl="soon")
    write(scopes, "twice").write_text(DOCUMENT.format(name="reports-b", description="x", ttl="1m"))
    (scopes / "wrong-when.yaml").write_text(
        DOCUMENT.format(name="wrong-when", description="x", ttl="1m") + "  when: nonsense.here == 1\n"
    )
    (scopes / "broken.yaml").write_text("a: [")
    refused = broker("scopes", "apply", "--no-vault", "--yes", str(scopes), expect=2).stderr
    assert refused.startswith("error: the scope documents are not valid; nothing was changed\n")
    for part in (
        "wrong-ttl.yaml: spec.ttl.default: must be a duration such as 90s, 15m or 2h",
        "wrong-when.yaml: spec.when: ",
        "broken.yaml: the document: is not readable YAML",
        f"twice.yaml: metadata.name: 'reports-b' is also the name of {scopes}/nested/reports-b.yaml",
    ):
        assert part in refused
    assert fake.scopes == {}


def test_files_that_are_not_there(broker: Command, tmp_path: Path) -> None:
    assert "cannot be read: No such file" in broker("scopes", "plan", str(tmp_path / "no.yaml"), expect=2).stderr
    (tmp_path / "empty").mkdir()
    assert "holds no *.yaml or *.yml file" in broker("scopes", "plan", str(tmp_path / "empty"), expect=2).stderr
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in broker("scopes", "plan", str(tmp_path / "binary.yaml"), expect=2).stderr


def test_scopes_are_listed_shown_and_deleted(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    apply(broker, str(scopes))
    write(scopes, "reports-a", description="Only the newest")
    apply(broker, str(scopes))
    lines = broker("scopes", "list").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["reports-a", "2", "vault_token"],
        ["reports-b", "1", "vault_token"],
    ]
    assert "Only the newest" in broker("scopes", "show", "reports-a").stdout
    assert "  description: Read reports\n" in broker("scopes", "show", "reports-a", "--version", "1").stdout
    broker("scopes", "delete", "reports-a", answer="n\n", expect=1)
    deleted = broker("scopes", "delete", "reports-a", "--yes")
    assert deleted.stdout == "deleted reports-a\n"
    assert "its Vault role and policy stay" in deleted.stderr
    assert fake.scopes["reports-a"] == []


def test_a_document_cannot_move_the_cursor(broker: Command, fake: FakeBroker, scopes: Path) -> None:
    apply(broker, str(scopes))
    fake.scopes["reports-a"][0].document += "# \x1b[2J\rnothing to see\n"
    for words in (("scopes", "show", "reports-a"), ("scopes", "plan", str(scopes))):
        shown = broker(*words).stdout
        assert r"\x1b[2J\rnothing to see" in shown
        assert all(char == "\n" or char.isprintable() for char in shown)


def test_a_question_about_access(broker: Command, fake: FakeBroker) -> None:
    fake.explanation = ExplainAccessResponse(
        reason="SCOPE_DENIED",
        deciding_rule="spec.when",
        scope_version=2,
        steps=[
            ExplainStep(rule="spec.who[0]", passed=True, detail="spiffeId matches"),
            ExplainStep(rule="spec.when", passed=False, detail="task.labels.env is 'dev'"),
        ],
    )
    words = [
        *("scopes", "explain", "--agent", AGENT, "--scope", "reports-db"),
        *("--param", "role=reader", "--param", "limit:=5", "--claim", 'groups:=["data"]', "--label", "env=dev"),
        *("--ttl", "5m", "--purpose", "why"),
    ]
    assert broker(*words).stdout.splitlines() == [
        "reports-db version 2 would be refused (SCOPE_DENIED)",
        "  ✓ spec.who[0]  spiffeId matches",
        "  ✗ spec.when  task.labels.env is 'dev'  <- decides",
    ]
    (question,) = fake.questions
    assert question.agent.uri == AGENT
    assert dict(question.parameters) == {"role": "reader", "limit": 5}
    assert json_format.MessageToDict(question.agent.claims) == {"groups": ["data"]}
    assert dict(question.task_labels) == {"env": "dev"}
    assert question.ttl.ToSeconds() == 300
    assert question.task_purpose == "why"
    assert json.loads(broker(*words, "-o", "json").stdout)["deciding_rule"] == "spec.when"


def test_an_answer_that_grants(broker: Command, fake: FakeBroker) -> None:
    fake.explanation = ExplainAccessResponse(allowed=True, deciding_rule="spec.who[0]", scope_version=1)
    words = ("scopes", "explain", "--agent", AGENT, "--scope", "reports-db")
    assert broker(*words).stdout == "reports-db version 1 would be granted\n"
