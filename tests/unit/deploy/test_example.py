from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from broker.attest import SETTINGS
from broker.config import Settings, load_settings
from broker.document import load_yaml
from broker.errors import ConfigError

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
EXAMPLE = DEPLOY / "broker.example.yaml"


def test_the_example_is_a_valid_configuration() -> None:
    settings = load_settings(EXAMPLE, SETTINGS, {})
    assert {entry.kind for entry in settings.attestors} == SETTINGS.keys()
    assert settings.listen.bearer is not None
    assert settings.listen.mutual is not None


def test_the_example_shows_defaults_where_it_says_so() -> None:
    settings = load_settings(EXAMPLE, SETTINGS, {})
    assert settings.tasks == type(settings.tasks)()
    assert settings.limits == type(settings.limits)()
    assert settings.log == type(settings.log)()
    assert not settings.reflection


@pytest.mark.parametrize("model", [Settings, *SETTINGS.values()])
def test_the_example_shows_every_setting(model: type[BaseModel]) -> None:
    text = EXAMPLE.read_text()
    names = {name for name in fields(model) if f"{name}:" not in text}
    assert names == set()


def test_a_setting_that_does_not_exist_would_be_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "broker.yaml"
    changed.write_text(EXAMPLE.read_text().replace("max_timeout:", "longest_timeout:"))
    with pytest.raises(ConfigError, match=r"tasks\.longest_timeout"):
        load_settings(changed, SETTINGS, {})


def test_the_cluster_s_configuration_is_valid(tmp_path: Path) -> None:
    manifest = load_yaml((DEPLOY / "kubernetes" / "configmap.yaml").read_text())
    assert isinstance(manifest, dict)
    file = tmp_path / "broker.yaml"
    file.write_text(manifest["data"]["broker.yaml"])
    load_settings(file, SETTINGS, {"CREDBROKER_DATABASE__URL": "postgresql+psycopg://db/credbroker"})


def fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name
        for nested in models(field.annotation):
            yield from fields(nested)


def models(annotation: object) -> Iterator[type[BaseModel]]:
    for part in get_args(annotation):
        yield from models(part)
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
