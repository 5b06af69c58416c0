import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mint.paths import check_policy_path, check_template, placeholder, safe_segment


@pytest.mark.parametrize("text", ["a", "creds", "v1.2_x-y", "...", "a" * 256])
def test_plain_segments_pass(text: str) -> None:
    assert safe_segment(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "%2f", "a?b", "a#b", "a b", "a\n", "\na", "a\x00", "é", "+", "*", ",", "{a}", "a" * 257],
)
def test_anything_else_does_not(text: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 256 characters"):
        safe_segment(text)


@given(st.text(max_size=20))
def test_what_passes_is_one_literal_segment(text: str) -> None:
    try:
        safe_segment(text)
    except ValueError:
        return
    assert text.isascii()
    assert text not in ("", ".", "..")
    assert all(character.isalnum() or character in "_.-" for character in text)


@pytest.mark.parametrize(
    "path",
    [
        "secret/data/app",
        "secret/data/app/*",
        "secret/data/app-*",
        "secret/data/+/config",
        "secret/data/+",
        "secret/*",
        "secret/metadata/",
        "kv-2/data/auth/sys",
    ],
)
def test_paths_of_policies(path: str) -> None:
    assert check_policy_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "+/data/app",
        "s*",
        "secret",
        "/secret/data",
        "secret//data",
        "secret/../sys/seal",
        "secret/./data",
        "secret/da*ta/app",
        "secret/*/app",
        "secret/data/a+b",
        "secret/data/+*",
        "secret/data/**",
        "secret/data/a,b",
        "secret/data/a b",
        'secret/data/a"b',
        "secret/data/a\nb",
        "secret/data/{{identity.entity.id}}",
        "secret/data/%2e%2e",
    ],
)
def test_paths_that_no_policy_takes(path: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|below a secrets engine"):
        check_policy_path(path)


@pytest.mark.parametrize("path", ["sys/*", "sys/seal", "auth/token/create", "auth/*", "identity/entity", "identity/+"])
def test_power_over_vault_is_out_of_reach(path: str) -> None:
    with pytest.raises(ValueError, match="cannot give power over Vault itself or over the broker's tokens"):
        check_policy_path(path)
    with pytest.raises(ValueError, match="cannot give power over Vault itself or over the broker's tokens"):
        check_template(path)


@pytest.mark.parametrize("path", ["database/creds/{role}", "aws/sts/deploy", "team/db/creds/{role}/{site}"])
def test_templates(path: str) -> None:
    assert check_template(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "database",
        "{mount}/creds/x",
        "database/creds/x-{role}",
        "database/creds/{role}{site}",
        "database/creds/{}",
        "database/creds/{a.b}",
        "database/creds/+",
        "database/creds/*",
        "database/creds/",
        "database/../creds",
    ],
)
def test_what_is_no_template(path: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|below a secrets engine"):
        check_template(path)


def test_placeholders_stand_for_a_whole_text() -> None:
    assert placeholder("{role}") == "role"
    assert [placeholder(text) for text in ("role", "{role", "x{role}", "{role}\n", "{1}", "{}")] == [None] * 6
