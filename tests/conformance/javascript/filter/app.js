// The conformance case `filter` in JavaScript: keeps expensive bids from `example.com`.
//
// It speaks the contract (wit/operator.wit) directly; an SDK for JavaScript comes later and hides all of this.

const PRICE = { name: "price", dataType: "Int64", nullable: true };
const URL = { name: "url", dataType: "Utf8", nullable: false };
const SETTINGS = { type: "object", properties: { "min-price": { type: "integer" } }, required: ["min-price"], additionalProperties: false };
const SITE = Array.from("https://example.com/", (letter) => letter.charCodeAt(0));
const NOTHING = new Uint8Array(0);

let minPrice = 0n;

/** Bytes of a typed array. */
const bytes = (numbers) => new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);

/** A view of a buffer as numbers; copied, since no alignment is promised. */
const numbers = (Kind, buffer, count) => new Kind(buffer.slice(0, count * Kind.BYTES_PER_ELEMENT).buffer);

const isSet = (packed, index) => packed.length === 0 || ((packed[index >> 3] >> (index & 7)) & 1) === 1;

export const operator = {
  describe: () => ({
    name: "filter", version: "0.1.0", summary: "Keeps expensive bids.", settingsSchema: JSON.stringify(SETTINGS),
    inputs: ["in"], outputs: ["out"], hints: [],
  }),

  plan(settings, inputs) {
    if (JSON.parse(settings)["min-price"] === undefined) throw "the setting `min-price` is missing";
    return {
      inputs: [{ reads: [PRICE, URL], keyed: false, eventTimes: false, changes: false }],
      outputs: [{ keeps: 0, adds: [], setsEventTimes: false, changes: false }],
      states: [], timers: [], hints: [],
    };
  },

  open(settings, inputs) {
    minPrice = BigInt(JSON.parse(settings)["min-price"]);
  },

  process(now, port, rows) {
    const [validity, priceBytes] = rows.columns[0].buffers;
    const [, offsetBytes, urls] = rows.columns[1].buffers;
    const prices = numbers(BigInt64Array, priceBytes, rows.length);
    const offsets = numbers(Int32Array, offsetBytes, rows.length + 1);
    const isOfSite = (row) => offsets[row + 1] - offsets[row] >= SITE.length && SITE.every((byte, i) => urls[offsets[row] + i] === byte);
    const stays = (row) => isSet(validity, row) && prices[row] >= minPrice && isOfSite(row);
    const kept = new Uint32Array(rows.length);
    let length = 0;
    for (let row = 0; row < rows.length; row++) if (stays(row)) kept[length++] = row;
    const output = { port: 0, from: bytes(kept.slice(0, length)), length, eventTimes: NOTHING, changes: NOTHING, columns: [] };
    return { outputs: [output], updates: { values: [], maps: [], lists: [], timers: [] }, rejected: [] };
  },

  onTimers(now, due) {
    throw { tag: "fatal", val: "this operator has no timers" };
  },
};
