"""The conformance case `filter` in Python: keeps the rows whose `amount` is at least the setting `at-least`.

It speaks the contract (wit/operator.wit) directly; an SDK for Python comes later and hides all of this.
"""

import json
from array import array

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import operator as contract
from wit_world.imports import columns

AMOUNT = columns.Field(name="amount", data_type="Int64", nullable=False)
SETTINGS = {"type": "object", "properties": {"at-least": {"type": "integer"}}, "required": ["at-least"], "additionalProperties": False}


class Operator(exports.Operator):
    def __init__(self):
        self.at_least = 0

    def describe(self):
        return contract.Descriptor("filter", "0.1.0", "Keeps large amounts.", json.dumps(SETTINGS), ["input"], ["output"], [])

    def plan(self, settings, inputs):
        if "at-least" not in json.loads(settings):
            raise Err("the setting `at-least` is missing")
        read = contract.InputPlan(reads=[AMOUNT], keyed=False, event_times=False, changes=False)
        kept = contract.OutputPlan(keeps=0, adds=[], sets_event_times=False, changes=False)
        return contract.Planned([read], [kept], [], [], [])

    def open(self, settings, inputs):
        self.at_least = json.loads(settings)["at-least"]

    def process(self, now, port, rows):
        amounts = memoryview(rows.columns[0].buffers[1])[: 8 * rows.length].cast("q")
        at_least = self.at_least
        kept = array("I", [row for row, amount in enumerate(amounts) if amount >= at_least])
        output = contract.Output(0, kept.tobytes(), len(kept), b"", b"", [])
        return contract.Turn([output], contract.Updates([], [], [], []), [])

    def on_timers(self, now, due):
        raise Err(contract.Failure_Fatal("this operator has no timers"))
