//! Apache Avro (specification 1.12): values in its binary encoding, and files of them.
//!
//! [`Schema`] is a schema as it was written down. Reading: [`Plan`] decides once how values of a *writer's* schema become columns: by name, only
//! those that are asked for, the rest is passed over. A value that ends too early, holds absurd lengths or does not fit its
//! column is an error of its record, and leaves nothing behind. Writing: [`Writer`] encodes columns in a schema, which [`derived`] makes of them
//! where nobody gives one.
//!
//! | Avro | column | also read as |
//! |---|---|---|
//! | boolean | Boolean | |
//! | int, long | Int32, Int64 | other integers it fits into, floats; without logical type also dates, times, timestamps and durations in the column's unit |
//! | float, double | Float32, Float64 | float as Float64 |
//! | bytes, string | Binary, Utf8 | each other |
//! | fixed | FixedSizeBinary | Binary |
//! | enum, uuid | Utf8 (uuid of fixed: FixedSizeBinary(16)) | |
//! | decimal | Decimal128 | bytes |
//! | date, time-millis, time-micros | Date32, Time32(ms), Time64(µs) | |
//! | timestamp-…, local-timestamp-… | Timestamp in that unit, UTC or without zone | timestamps in other units, if nothing is lost |
//! | array, map, record | List, Map, Struct | |
//! | union with null | `?` | |
//! | another union | none by itself; declared, whatever all its values fit into | |

pub mod container;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod write;

pub use read::Plan;
pub use schema::Schema;
pub use types::{columns, derived};
pub use write::Writer;
