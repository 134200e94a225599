// The conformance case `keyed-count` in JavaScript: counts words; a word that is not seen for 100 ms of event time starts
// anew.
//
// Each row sets the key's `expiry` timer anew and deletes the one before. When it fires, the count leaves and the state is forgotten. It speaks the contract (wit/operator.wit) directly; an SDK comes later and hides all of this.

const STATE_TYPE = 'Struct("count": non-null Int64, "deadline": non-null Int64)';
const QUIET_MS = 100n;
const NOTHING = new Uint8Array(0);

const bytes = (numbers) => new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
const numbers = (Kind, buffer, count) => new Kind(buffer.slice(0, count * Kind.BYTES_PER_ELEMENT).buffer);
const isSet = (packed, index) => packed.length === 0 || ((packed[index >> 3] >> (index & 7)) & 1) === 1;

function bitmap(flags) {
  const packed = new Uint8Array((flags.length + 7) >> 3);
  flags.forEach((flag, index) => { if (flag) packed[index >> 3] |= 1 << (index & 7); });
  return packed;
}

/** [count, deadline] per key, null where the key is new. */
function decodeStates(column) {
  const [validity, , counts, , deadlines] = column.buffers;
  const [count, deadline] = [numbers(BigInt64Array, counts, column.length), numbers(BigInt64Array, deadlines, column.length)];
  return Array.from({ length: column.length }, (_, key) => (isSet(validity, key) ? [count[key], deadline[key]] : null));
}

function encodeStates(states) {
  const values = (index) => bytes(BigInt64Array.from(states, (state) => (state ? state[index] : 0n)));
  return { length: states.length, buffers: [bitmap(states.map((state) => state !== null)), NOTHING, values(0), NOTHING, values(1)] };
}

const allChanged = (states) => ({ state: 0, changed: bitmap(states.map(() => true)), values: encodeStates(states) });
const keyOfRow = (keys, length) => (keys.ofRow.length ? numbers(Uint32Array, keys.ofRow, length) : Uint32Array.from({ length }, (_, i) => i));

function timerUpdates(before, after) {
  const [keys, at, deleted] = [[], [], []];
  const change = (key, time, gone) => { keys.push(key); at.push(time); deleted.push(gone); };
  after.forEach((state, key) => {
    if (before[key] && before[key][1] === state[1]) return;
    if (before[key]) change(key, before[key][1], true);
    change(key, state[1], false);
  });
  if (keys.length === 0) return [];
  return [{ timer: 0, keys: bytes(Uint32Array.from(keys)), at: bytes(BigInt64Array.from(at)), deleted: bitmap(deleted) }];
}

export const operator = {
  describe: () => ({
    name: "keyed-count", version: "0.1.0", summary: "Counts words.", settingsSchema: "",
    inputs: ["in"], outputs: ["counts", "expired"], hints: [],
  }),

  plan(settings, inputs) {
    const [input] = inputs;
    if (input.keys.length === 0 || !input.eventTimes) throw "the input needs a key and event times: add `key-by`, and `event-time` to its source";
    const keys = Array.from(input.keys, (index) => input.fields[index]);
    const count = { name: "count", dataType: "Int64", nullable: false };
    return {
      inputs: [{ reads: [], keyed: true, eventTimes: true, changes: false }],
      outputs: [
        { keeps: 0, adds: [count], setsEventTimes: false, changes: false },
        { adds: [...keys, count], setsEventTimes: false, changes: false },
      ],
      states: [{ name: "count", kind: "value", scope: "keyed", valueType: STATE_TYPE, version: 1 }],
      timers: [{ name: "expiry", clock: "event-time" }],
      hints: [],
    };
  },

  open(settings, inputs) {},

  process(now, port, rows) {
    const states = decodeStates(rows.keys.values[0]);
    const before = states.slice();
    const ofRow = keyOfRow(rows.keys, rows.length);
    const times = numbers(BigInt64Array, rows.eventTimes, rows.length);
    const counts = new BigInt64Array(rows.length);
    for (let row = 0; row < rows.length; row++) {
      const [key, quietAt] = [ofRow[row], times[row] + QUIET_MS];
      const [count, deadline] = states[key] ?? [0n, quietAt];
      states[key] = [count + 1n, deadline > quietAt ? deadline : quietAt];
      counts[row] = count + 1n;
    }
    // Empty `from`: row i of row i.
    const columns = [{ length: rows.length, buffers: [NOTHING, bytes(counts)] }];
    const output = { port: 0, from: NOTHING, length: rows.length, eventTimes: NOTHING, changes: NOTHING, columns };
    return { outputs: [output], updates: { values: [allChanged(states)], maps: [], lists: [], timers: timerUpdates(before, states) }, rejected: [] };
  },

  onTimers(now, due) {
    const states = decodeStates(due.keys.values[0]);
    const ofTimer = keyOfRow(due.keys, due.length);
    const counts = BigInt64Array.from(ofTimer, (key) => states[key][0]);
    const output = {
      port: 1, from: bytes(Uint32Array.from({ length: due.length }, (_, i) => i)), length: due.length, eventTimes: NOTHING, changes: NOTHING,
      columns: [...due.keyColumns, { length: due.length, buffers: [NOTHING, bytes(counts)] }],
    };
    return { outputs: [output], updates: { values: [allChanged(states.map(() => null))], maps: [], lists: [], timers: [] }, rejected: [] };
  },
};
