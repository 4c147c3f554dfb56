"""The JSON shapes that resources of the command API share: strict bodies, money as decimal strings."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictInt, WithJsonSchema

from domain.errors import Invalid
from domain.money import parse_limit, parse_usd


class Body(BaseModel):
    """What a caller sends: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Resource(BaseModel):
    """What is answered: every resource has `id` and `version`."""

    id: str
    version: int


class Reason(Body):
    """Why, for the audit."""

    reason: str | None = None


async def _reason(body: Reason | None = None) -> str | None:
    return None if body is None else body.reason


Why = Annotated[str | None, Depends(_reason)]
"""The reason in an optional body."""


def _money(parse: Callable[[str, str], int]) -> Callable[[Any], int]:
    def validate(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError('must be a decimal string of dollars like "12.50": other JSON numbers are not exact')
        try:
            return parse(value, "")
        except Invalid as error:
            raise ValueError(error.errors[0].message) from None

    return validate


_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,20}(\.\d{1,9})?$", "examples": ["12.50"]})

Limit = Annotated[int, PlainValidator(_money(parse_limit)), _SCHEMA]
"""A budget limit or a price, not negative: in as a decimal string (or whole JSON number) of dollars, here nano-dollars."""

Amount = Annotated[int, PlainValidator(_money(parse_usd)), _SCHEMA]
"""An amount of either sign: in as a decimal string of dollars, here nano-dollars."""

Count = Annotated[StrictInt, Field(ge=1, le=10**15)]
"""A whole number of at least one."""
