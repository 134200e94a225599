"""The conformance case `filter` in Python: keeps expensive bids from `example.com`.

It speaks the contract (wit/operator.wit) directly; an SDK for Python comes later and hides all of this.
"""

import json
from array import array

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import operator as contract
from wit_world.imports import columns

PRICE = columns.Field(name="price", data_type="Int64", nullable=True)
URL = columns.Field(name="url", data_type="Utf8", nullable=False)
SETTINGS = {"type": "object", "properties": {"min-price": {"type": "integer"}}, "required": ["min-price"], "additionalProperties": False}
SITE = b"https://example.com/"


def is_set(packed, index):
    return not packed or packed[index >> 3] >> (index & 7) & 1 == 1


# The class is made anew for every call, so what `open` learns stays with the module.
min_price = 0


class Operator(exports.Operator):
    def describe(self):
        return contract.Descriptor("filter", "0.1.0", "Keeps expensive bids.", json.dumps(SETTINGS), ["in"], ["out"], [])

    def plan(self, settings, inputs):
        if "min-price" not in json.loads(settings):
            raise Err("the setting `min-price` is missing")
        read = contract.InputPlan(reads=[PRICE, URL], keyed=False, event_times=False, changes=False)
        kept = contract.OutputPlan(keeps=0, adds=[], sets_event_times=False, changes=False)
        return contract.Planned([read], [kept], [], [], [])

    def open(self, settings, inputs):
        global min_price
        min_price = json.loads(settings)["min-price"]

    def process(self, now, port, rows):
        validity, prices = rows.columns[0].buffers
        _, offsets, urls = rows.columns[1].buffers
        prices = memoryview(prices)[: 8 * rows.length].cast("q")
        offsets = memoryview(offsets)[: 4 * rows.length + 4].cast("i")

        def stays(row):
            return is_set(validity, row) and prices[row] >= min_price and urls.startswith(SITE, offsets[row], offsets[row + 1])

        kept = array("I", [row for row in range(rows.length) if stays(row)])
        output = contract.Output(0, kept.tobytes(), len(kept), b"", b"", [])
        return contract.Turn([output], contract.Updates([], [], [], []), [])

    def on_timers(self, now, due):
        raise Err(contract.Failure_Fatal("this operator has no timers"))
