"""What the scripts for the three clients have in common."""

import sys

from pydantic import BaseModel

checks = 0


def check(condition, what):
    """Counts a check, and ends the script if it does not hold."""
    global checks
    checks += 1
    if not condition:
        print(f"does not hold: {what}", file=sys.stderr)
        sys.exit(1)


def known(model, known_extras=()):
    """Every field is one that the client has."""
    if isinstance(model, BaseModel):
        extras = set(model.model_extra or {}) - set(known_extras)
        check(not extras, f"{type(model).__name__} has no {sorted(extras)}")
        for value in vars(model).values():
            known(value, known_extras)
        for value in (model.model_extra or {}).values():
            known(value, known_extras)
    elif isinstance(model, list):
        for value in model:
            known(value, known_extras)


def raises(kind, words, call):
    """`call` ends in an error of this kind that says `words`."""
    try:
        call()
    except kind as error:
        check(words in str(error), f"{words!r} is in {error}")
        return error
    check(False, f"{kind.__name__} was raised")


def done():
    print(f"{checks} checks hold")
