"""Settings: one precedence, and everything unknown or impossible is refused by its own name."""

from pathlib import Path

import pytest

from cli.settings import Settings, load_settings, parse_listen
from domain.errors import Invalid

SECRET = "s" * 32


def load(folder: Path, flags: dict[str, object] | None = None, profile: str | None = None, **environ: str) -> Settings:
    return load_settings(flags, {"HOME": str(folder), **environ}, folder, profile)


def refused(folder: Path, flags: dict[str, object] | None = None, profile: str | None = None, **environ: str) -> str:
    """The names of the settings that were refused."""
    with pytest.raises(Invalid) as raised:
        load(folder, flags, profile, **environ)
    return ", ".join(error.field for error in raised.value.errors)


def test_without_anything_the_defaults_are_in_force(tmp_path: Path) -> None:
    """A first start needs no setting."""
    settings = load(tmp_path)
    assert (settings.data, settings.address, settings.sync) == (Path("tollhouse-data"), ("127.0.0.1", 8080), "full")
    assert (settings.url, settings.admin_key, settings.secret) == (None, None, None)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    """Each source is overridden by the one before it."""
    (tmp_path / "tollhouse.toml").write_text('sync = "normal"\nlisten = "1.1.1.1:1"\ndata = "file"\n')
    settings = load(
        tmp_path, {"data": Path("flag"), "listen": None}, TOLLHOUSE_LISTEN="2.2.2.2:2", TOLLHOUSE_DATA="environment"
    )
    assert (settings.sync, settings.listen, settings.data) == ("normal", "2.2.2.2:2", Path("flag"))


def test_variables_of_others_are_not_ours(tmp_path: Path) -> None:
    """Only the prefix TOLLHOUSE_ is looked at."""
    assert load(tmp_path, PATH="/bin", MY_TOLLHOUSE_X="1", _TOLLHOUSE_COMPLETE="x") == load(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOLLHOUSE_DTAA", "x"),
        ("TOLLHOUSE_ORG", "acme"),
        ("TOLLHOUSE_sync", "full"),
        ("TOLLHOUSE_", "x"),
        ("TOLLHOUSE_SYNC", "fast"),
        ("TOLLHOUSE_LISTEN", "8080"),
        ("TOLLHOUSE_LISTEN", "host:port"),
        ("TOLLHOUSE_LISTEN", "127.0.0.1:65536"),
        ("TOLLHOUSE_LISTEN", ":8080"),
        ("TOLLHOUSE_SECRET", "short"),
        ("TOLLHOUSE_MAX_BODY", "-1"),
        ("TOLLHOUSE_MAX_BODY", "lots"),
        ("TOLLHOUSE_READ_TIMEOUT", "0"),
        ("TOLLHOUSE_READ_TIMEOUT", "nan"),
        ("TOLLHOUSE_MAX_INFLIGHT", "0"),
        ("TOLLHOUSE_ALLOW_PRIVATE", "perhaps"),
        ("TOLLHOUSE_URL", "localhost:8080"),
        ("TOLLHOUSE_KAFKA", ""),
    ],
)
def test_an_unknown_or_impossible_variable_is_named(tmp_path: Path, variable: str, value: str) -> None:
    """The error names the variable as it was written."""
    with pytest.raises(Invalid) as raised:
        load_settings(None, {variable: value}, tmp_path)
    assert [error.field for error in raised.value.errors] == [variable]


def test_an_unknown_or_impossible_key_of_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    """All of them at once, and each as a key of tollhouse.toml."""
    (tmp_path / "tollhouse.toml").write_text('datta = "x"\nsync = 3\n')
    assert refused(tmp_path) == "sync in tollhouse.toml, datta in tollhouse.toml"


def test_a_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    """Underscores are dashes on the command line."""
    assert refused(tmp_path, {"max_body": 1}) == "--max-body"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    """The path is in the error."""
    (tmp_path / "tollhouse.toml").write_text("data = [")
    assert refused(tmp_path) == str(tmp_path / "tollhouse.toml")


def test_a_secret_does_not_show(tmp_path: Path) -> None:
    """Neither the settings nor an error prints it."""
    assert SECRET not in repr(load(tmp_path, TOLLHOUSE_SECRET=SECRET))
    with pytest.raises(Invalid) as raised:
        load(tmp_path, TOLLHOUSE_SECRET="much too short")
    assert "much too short" not in raised.value.message


def test_a_profile_is_a_set_of_flags(tmp_path: Path) -> None:
    """It beats the environment, and a flag beats it."""
    folder = tmp_path / ".config" / "tollhouse"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[profiles.prod]\nurl = "https://prod/"\norg = "acme"\ndata = "d"\n')
    settings = load(tmp_path, {"data": "flag"}, "prod", TOLLHOUSE_URL="http://environment")
    assert (settings.url, settings.org, settings.data) == ("https://prod", "acme", Path("flag"))


def test_a_profile_that_is_not_there_or_sets_the_unknown_is_refused(tmp_path: Path) -> None:
    """XDG_CONFIG_HOME says where profiles are."""
    folder = tmp_path / "xdg" / "tollhouse"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[profiles.odd]\nlisten = "1.1.1.1:1"\n')
    assert refused(tmp_path, None, "prod", XDG_CONFIG_HOME=str(tmp_path / "xdg")) == "--profile"
    assert refused(tmp_path, None, "odd", XDG_CONFIG_HOME=str(tmp_path / "xdg")) == "listen in profile odd"


def test_addresses_may_be_ipv6() -> None:
    """The brackets are not part of the host."""
    assert parse_listen("[::1]:0") == ("::1", 0)
