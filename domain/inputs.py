"""Checks of single values that several aggregates share. Each answers the value or raises `Invalid` naming the field."""

import re
from datetime import datetime

from domain.errors import invalid

_MODEL = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")


def display_name(text: str, field: str = "name") -> str:
    """A name for people: 1 to 200 printable characters, not only blanks."""
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise invalid(field, "must be 1 to 200 printable characters")
    return text


def reason_text(text: str | None, field: str = "reason") -> str | None:
    """Why somebody did something: nothing, or up to 500 printable characters."""
    if text is not None and (len(text) > 500 or not text.isprintable()):
        raise invalid(field, "must be at most 500 printable characters")
    return text


def model_id(text: str, field: str = "model") -> str:
    """The public name of a model: as a chosen id, and dots too, because providers' names have them (``gpt-4.1``)."""
    if not _MODEL.fullmatch(text):
        raise invalid(
            field, f"must be 1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or digit; got {text!r:.80}"
        )
    return text


def model_list(models: tuple[str, ...] | None, field: str = "models") -> tuple[str, ...] | None:
    """Models something is restricted to; None: all."""
    if models is None:
        return None
    if not models:
        raise invalid(field, "must name at least one model; leave it out, or give null, for all")
    return tuple(dict.fromkeys(model_id(model, field) for model in models))


def email_address(text: str, field: str = "email") -> str:
    """Something with one @ that mail could be sent to; whether it can is for the mail to find out."""
    if not _EMAIL.fullmatch(text):
        raise invalid(field, f"must be an e-mail address; got {text!r:.80}")
    return text


def at_least(least: int, value: int | None, field: str) -> None:
    """Refuses numbers below `least`; None passes."""
    if value is not None and value < least:
        raise invalid(field, f"must be at least {least}; got {value}")


def after(moment: datetime, value: datetime | None, field: str) -> None:
    """Refuses times that are not after `moment`; None passes."""
    if value is not None and value <= moment:
        raise invalid(field, f"must be in the future; got {value.isoformat()}")
