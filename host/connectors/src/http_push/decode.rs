//! From a body to rows.

use millstream_engine::rejected::Rejection;
use millstream_model::Batch;

use crate::formats::{
    layout::TextLayout,
    text::{Buffer, Records},
};

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;

/// How bodies are read.
#[derive(Clone)]
pub struct Decoder {
    /// All columns of the source.
    pub layout: TextLayout,
    /// Those that the job reads.
    pub columns: Vec<usize>,
    /// A longer line is bad.
    pub record_bytes_max: usize,
}

impl Decoder {
    /// The rows of a body, none of the batches empty, and the lines that cannot be read; both with their lines, from 0.
    ///
    /// # Errors
    /// The columns are none that lines can hold; a clause.
    pub fn decode(&self, body: &[u8]) -> Result<(Vec<Batch>, Vec<Rejection>), String> {
        let format = self.layout.reader(&self.columns, &[])?;
        let mut buffer = Buffer::default();
        buffer.feed(body);
        let mut records = Records::new("body".into(), format, buffer, 0, self.record_bytes_max);
        let (mut batches, mut bad) = (Vec::new(), Vec::new());
        while let Some(rows) = records.next(BATCH_ROWS, true) {
            batches.extend((rows.batch.num_rows() > 0).then_some(rows.batch));
            bad.extend(rows.rejected);
        }
        Ok((batches, bad))
    }
}
