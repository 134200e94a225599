//! Protocol Buffers: messages in their binary encoding.
//!
//! [`Schema`] is a message type, out of the text of a `.proto` file. [`Plan`] decides once how messages become
//! columns: by the names of fields, only those that are asked for. Fields come in any order, so a message is looked through once, keeping where
//! the wanted ones lie, and then read in the order of the columns. [`Writer`] does the reverse.
//!
//! | field | column | also read as |
//! |---|---|---|
//! | int32, sint32, sfixed32, int64 … | Int32, Int64 | other integers they fit into |
//! | uint32, fixed32, uint64, fixed64 | UInt32, UInt64 | other integers they fit into |
//! | float, double, bool, string, bytes | Float32, Float64, Boolean, Utf8, Binary | float as Float64 |
//! | enum | Utf8, its name (a number that has none: the number) | an integer, its number |
//! | message | Struct, `?` | |
//! | repeated, map | List, Map | |
//! | google.protobuf.Timestamp, Duration | Timestamp(ns, UTC), Duration(ns), `?` | in other units, cut |
//! | google.protobuf.Int64Value … | what is wrapped, `?` | |
//!
//! A field that is not there is null where that can be known (`optional`, members of a `oneof`, messages), else its default. In a column declared
//! without `?` it is its default, and a message that is not there an error.

mod parse;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod write;

pub use read::Plan;
pub use schema::Schema;
pub use types::columns;
pub use write::Writer;
