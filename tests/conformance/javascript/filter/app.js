// The conformance case `filter` in JavaScript: keeps the rows whose `amount` is at least the setting `at-least`.
//
// It speaks the contract (wit/operator.wit) directly; an SDK for JavaScript comes later and hides all of this.

const AMOUNT = { name: "amount", dataType: "Int64", nullable: false };
const SETTINGS = { type: "object", properties: { "at-least": { type: "integer" } }, required: ["at-least"], additionalProperties: false };
const NOTHING = new Uint8Array(0);

let atLeast = 0n;

/** Bytes of a typed array. */
const bytes = (numbers) => new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);

/** A view of a buffer as numbers; copied, since no alignment is promised. */
const numbers = (Kind, buffer, count) => new Kind(buffer.slice(0, count * Kind.BYTES_PER_ELEMENT).buffer);

export const operator = {
  describe: () => ({
    name: "filter", version: "0.1.0", summary: "Keeps large amounts.", settingsSchema: JSON.stringify(SETTINGS),
    inputs: ["input"], outputs: ["output"], hints: [],
  }),

  plan(settings, inputs) {
    if (JSON.parse(settings)["at-least"] === undefined) throw "the setting `at-least` is missing";
    return {
      inputs: [{ reads: [AMOUNT], keyed: false, eventTimes: false, changes: false }],
      outputs: [{ keeps: 0, adds: [], setsEventTimes: false, changes: false }],
      states: [], timers: [], hints: [],
    };
  },

  open(settings, inputs) {
    atLeast = BigInt(JSON.parse(settings)["at-least"]);
  },

  process(now, port, rows) {
    const amounts = numbers(BigInt64Array, rows.columns[0].buffers[1], rows.length);
    const kept = new Uint32Array(rows.length);
    let length = 0;
    for (let row = 0; row < rows.length; row++) if (amounts[row] >= atLeast) kept[length++] = row;
    const output = { port: 0, from: bytes(kept.slice(0, length)), length, eventTimes: NOTHING, changes: NOTHING, columns: [] };
    return { outputs: [output], updates: { values: [], maps: [], lists: [], timers: [] }, rejected: [] };
  },

  onTimers(now, due) {
    throw { tag: "fatal", val: "this operator has no timers" };
  },
};
