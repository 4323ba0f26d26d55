"""The child that tries a plan's options with transformers: a plan on stdin, a refusal or null on stdout."""

import os
import sys

import msgspec

from llem.engines.hf_load_options import check_load
from llem.engines.hf_options import check_generation
from llem.engines.options import Refusal
from llem.errors import LlemError
from llem.plan import Plan


def refusal_of(plan: Plan) -> Refusal | None:
    """Why the plan's options cannot be used."""
    try:
        check_generation(plan.generate_options, batch_size=plan.engine.batch_size)
        check_load(plan.model)
    except LlemError as error:
        found, expected = (None if fact is None else str(fact) for fact in (error.found, error.expected))
        return Refusal(
            kind=type(error).__name__, what=error.what, found=found, expected=expected, hint=error.hint
        )
    return None


def main() -> None:
    """Answer; what the libraries print goes elsewhere."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with answer:
        answer.write(msgspec.json.encode(refusal_of(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))


if __name__ == "__main__":
    main()
