"""Settings: flag, then environment, then ``tollhouse.toml`` in the working directory, then default.

Nothing is guessed: an unknown key in the file, an unknown ``TOLLHOUSE_`` variable or an impossible value is `Invalid`, naming
the setting where it was given. A profile (``--profile NAME``) is a set of flags kept in
``$XDG_CONFIG_HOME/tollhouse/config.toml``, under ``[profiles.NAME]``: url, admin_key, data and org.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from domain.errors import FieldError, Invalid, invalid

PREFIX = "TOLLHOUSE_"
FILE = "tollhouse.toml"


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` (port 0: any free one; ``[::1]:8080`` for IPv6). Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, like 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < 32:
        raise ValueError("must have at least 32 bytes")
    return value


class Settings(BaseModel):
    """Every setting. The names are those of the file and the flags; with ``TOLLHOUSE_`` and in capitals, of the environment.

    `sync`: how durable the log is written, ``full`` survives power loss. `max_body` in bytes, `read_timeout` in seconds (the
    longest a caller may take to send its request, or take nothing of its answer). `max_inflight`: requests that a process has
    under way at a time; None: as its open files allow. `allow_private`: backends may have addresses that are not public
    (embedded, those of this machine always may). `workers`: gateways that share a port (`tollhouse gateway` alone has several;
    embedded mode has one gate, in one process). `otlp`: the base URL of a collector that requests are told to as spans.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Path("tollhouse-data")
    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    url: Annotated[str, AfterValidator(_url)] | None = None
    admin_key: SecretStr | None = None
    org: str | None = None
    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    sync: Literal["full", "normal"] = "full"
    allow_private: bool = False
    max_body: int = Field(default=32 * 1024 * 1024, ge=1024, le=1 << 30)
    read_timeout: float = Field(default=30.0, gt=0, le=3600)
    max_inflight: int | None = Field(default=None, ge=1, le=1_000_000)
    kafka: str | None = Field(default=None, min_length=1)
    postgres: str | None = Field(default=None, min_length=1)
    redis: str | None = Field(default=None, min_length=1)
    clickhouse: str | None = Field(default=None, min_length=1)
    workers: int = Field(default=1, ge=1, le=64)
    otlp: Annotated[str, AfterValidator(_url)] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """`listen` as host and port."""
        return parse_listen(self.listen)


PROFILE_KEYS = ("url", "admin_key", "data", "org")
_NOT_IN_ENVIRONMENT = frozenset({"org"})


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    profile: str | None = None,
) -> Settings:
    """The settings in force. `flags` that are None were not given. Raises `Invalid` naming each bad setting."""
    environ = os.environ if environ is None else environ
    file = _from_file((folder or Path()) / FILE)
    environment = _from_environment(environ)
    chosen = {} if profile is None else _from_profile(profile, environ)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate({**file, **environment, **chosen, **given})
    except ValidationError as error:
        errors = []
        for item in error.errors():
            name = str(item["loc"][0])
            if name in given:
                source = f"--{name.replace('_', '-')}"
            elif name in chosen:
                source = f"{name} in profile {profile}"
            elif name in environment:
                source = f"{PREFIX}{name.upper()}"
            else:
                source = f"{name} in {FILE}"
            message = (
                "no such setting" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
            )
            errors.append(FieldError(source, message))
        raise Invalid(*errors) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name not in Settings.model_fields or name in _NOT_IN_ENVIRONMENT or variable != variable.upper():
                raise invalid(variable, "no such setting")
            found[name] = value
    return found


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise invalid(str(path), f"must be a readable TOML file: {error}") from None


def _from_profile(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    path = Path(base) / "tollhouse" / "config.toml"
    profiles = _from_file(path).get("profiles", {})
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise invalid("--profile", f"no profile {name!r} in {path}; there are: {known}")
    for key in profiles[name]:
        if key not in PROFILE_KEYS:
            raise invalid(f"{key} in profile {name}", f"no such setting; a profile has {', '.join(PROFILE_KEYS)}")
    return dict(profiles[name])


def needed(settings: Settings, process: str, *names: str) -> None:
    """Raises `Invalid` naming each setting of `names` that `process` needs and lacks."""
    missing = [name for name in names if getattr(settings, name) is None]
    if missing:
        raise Invalid(
            *(FieldError(f"TOLLHOUSE_{n.upper()}", f"must be set for `tollhouse {process}`") for n in missing)
        )
