//! What is known of a stream before it runs.

use arrow_schema::SchemaRef;

/// The type of one stream of the job graph: agreed at plan time, carried by every batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamType {
    /// The columns.
    pub schema: SchemaRef,
    /// Rows carry event times, and the stream carries watermarks.
    pub event_times: bool,
    /// Rows may be updates and deletions, not only inserts.
    pub changes: bool,
}
