"""The conformance case `keyed-count` in Python: counts words; a word that is not seen for 100 ms of event time starts anew.

Each row sets the key's `expiry` timer anew and deletes the one before. When it fires, the count leaves and the state is forgotten. It speaks the contract (wit/operator.wit) directly; an SDK for Python comes later and hides all of this.
"""

from array import array

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import operator as contract
from wit_world.imports import columns

STATE_TYPE = 'Struct("count": non-null Int64, "deadline": non-null Int64)'
QUIET_MS = 100


def bitmap(flags):
    packed = bytearray((len(flags) + 7) // 8)
    for index, flag in enumerate(flags):
        if flag:
            packed[index >> 3] |= 1 << (index & 7)
    return bytes(packed)


def is_set(packed, index):
    return not packed or packed[index >> 3] >> (index & 7) & 1 == 1


def numbers(code, buffer, count):
    size = array(code).itemsize
    return memoryview(buffer)[: size * count].cast(code)


def decode_states(column):
    """(count, deadline) per key, None where the key is new."""
    validity, _, counts, _, deadlines = column.buffers
    counts, deadlines = numbers("q", counts, column.length), numbers("q", deadlines, column.length)
    return [(counts[i], deadlines[i]) if is_set(validity, i) else None for i in range(column.length)]


def encode_states(states):
    counts = array("q", [state[0] if state else 0 for state in states])
    deadlines = array("q", [state[1] if state else 0 for state in states])
    validity = bitmap([state is not None for state in states])
    return columns.Column(len(states), [validity, b"", counts.tobytes(), b"", deadlines.tobytes()])


def changed_states(states, changed):
    kept = [state for state, flag in zip(states, changed) if flag]
    return contract.ValueUpdate(0, bitmap(changed), encode_states(kept))


class Operator(exports.Operator):
    def describe(self):
        return contract.Descriptor("keyed-count", "0.1.0", "Counts words.", "", ["in"], ["counts", "expired"], [])

    def plan(self, settings, inputs):
        if not inputs[0].keys or not inputs[0].event_times:
            raise Err("the input needs a key and event times: add `key-by`, and `event-time` to its source")
        read = contract.InputPlan(reads=[], keyed=True, event_times=True, changes=False)
        keys = [inputs[0].fields[index] for index in inputs[0].keys]
        count = columns.Field("count", "Int64", False)
        counts, expired = contract.OutputPlan(0, [count], False, False), contract.OutputPlan(None, keys + [count], False, False)
        state = contract.State("count", contract.StateKind.VALUE, contract.StateScope.KEYED, None, STATE_TYPE, 1, None)
        return contract.Planned([read], [counts, expired], [state], [contract.Timer("expiry", contract.Clock.EVENT_TIME)], [])

    def open(self, settings, inputs):
        pass

    def process(self, now, port, rows):
        states = decode_states(rows.keys.values[0])
        of_row = numbers("I", rows.keys.of_row, rows.length) if rows.keys.of_row else range(rows.length)
        times = numbers("q", rows.event_times, rows.length)
        before, counts = list(states), array("q")
        for row in range(rows.length):
            key = of_row[row]
            count, deadline = states[key] or (0, times[row] + QUIET_MS)
            states[key] = (count + 1, max(deadline, times[row] + QUIET_MS))
            counts.append(count + 1)
        # Empty `from`: row i of row i.
        output = contract.Output(0, b"", rows.length, b"", b"", [columns.Column(rows.length, [b"", counts.tobytes()])])
        return contract.Turn([output], self.updates(before, states), [])

    def updates(self, before, states):
        keys, at, deleted = array("I"), array("q"), []
        for key, (old, new) in enumerate(zip(before, states)):
            if old and old[1] != new[1]:
                keys.append(key), at.append(old[1]), deleted.append(True)
            if not old or old[1] != new[1]:
                keys.append(key), at.append(new[1]), deleted.append(False)
        timers = [contract.TimerUpdate(0, keys.tobytes(), at.tobytes(), bitmap(deleted))] if keys else []
        return contract.Updates([changed_states(states, [True] * len(states))], [], [], timers)

    def on_timers(self, now, due):
        states = decode_states(due.keys.values[0])
        of_row = numbers("I", due.keys.of_row, due.length) if due.keys.of_row else range(due.length)
        fired = array("I", range(due.length))
        counts = array("q", [states[of_row[timer]][0] for timer in range(due.length)])
        output = contract.Output(1, fired.tobytes(), due.length, b"", b"", [*due.key_columns, columns.Column(due.length, [b"", counts.tobytes()])])
        updates = contract.Updates([changed_states([None] * len(states), [True] * len(states))], [], [], [])
        return contract.Turn([output], updates, [])
