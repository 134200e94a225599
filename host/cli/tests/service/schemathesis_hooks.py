"""What schemathesis cannot know by itself: what the bytes of a component look like, and of one that has been damaged."""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies

COMPONENT = Path(os.environ["MILLSTREAM_COMPONENT"]).read_bytes()


def changed(place: int) -> bytes:
    """The component with another byte at one place."""
    return COMPONENT[:place] + bytes([COMPONENT[place] ^ 0x55]) + COMPONENT[place + 1 :]


PLACES = strategies.integers(min_value=0, max_value=len(COMPONENT) - 1)
schemathesis.openapi.media_type(
    "application/wasm",
    strategies.one_of(
        strategies.just(COMPONENT),
        PLACES.map(lambda length: COMPONENT[:length]),
        PLACES.map(changed),
        strategies.binary(max_size=64),
    ),
)
