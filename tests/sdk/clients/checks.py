"""Runs checks of a client and says of each how it ended: ``ok NAME`` or ``failed NAME: why``, a line each.

What the product offers is in the environment: ``URL``, ``KEY``, ``BROKE_KEY`` (its budget is exhausted), ``LIMITED_KEY``
(one request at a time), and the models ``m`` (OpenAI's protocol), ``claude`` (Anthropic's), ``slow`` (tokens drip for about
a second) and ``sleepy`` (silent for seconds).
"""

import os
import traceback
from collections.abc import Callable

URL, KEY = os.environ["URL"], os.environ["KEY"]
BROKE_KEY, LIMITED_KEY = os.environ["BROKE_KEY"], os.environ["LIMITED_KEY"]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def run(**checks: Callable[[], None]) -> None:
    """Each check by its name."""
    for name, check in checks.items():
        try:
            check()
        except Exception:  # noqa: BLE001  # whatever it is, the check is not well
            print(f"failed {name}: {traceback.format_exc().strip()!r}", flush=True)
        else:
            print(f"ok {name}", flush=True)


def raised(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    """What `call` raises, which must be a `kind`."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
