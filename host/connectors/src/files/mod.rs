//! `files`: CSV, NDJSON, Parquet and Avro files, lines of text (`string`), and messages (`protobuf`) and bytes (`raw`) behind their lengths; read and
//! written.
//!
//! # Source
//! `path` is a file, a directory (its files, not those of its directories), or a glob (`data/**/*.csv.gz`), or a list of these. Files are
//! read in the order of their names (lists: in the order of the list); names that start with `.` or `_` are passed over in directories and
//! globs. Each file is a split, named by its path as written in the job file; with `split-bytes`, ranges of uncompressed NDJSON and text are.
//!
//! *Columns*: those that the job file declares, found by name (CSV without header: by place; Parquet: by name, converted if the type differs).
//! Avro: by name, if the type fits; what the schema of a file does not have is null in columns with `?`.
//! Without declaration, Parquet and Avro files say it themselves, and CSV and NDJSON are guessed from the first `infer-records` records within the first
//! MiB of the first file: see [`crate::formats::csv::infer_schema`] and [`crate::formats::ndjson::infer_schema`].
//!
//! *Positions* of rows count from 0: records after the header in CSV, lines in NDJSON and text (in a range: from its start), rows in Parquet and Avro, values in Protobuf and raw.
//!
//! *Bad records* (too long, wrong number of fields, not UTF-8, a value that its column cannot hold) are rejected with reason, position and raw
//! text; a null in a column declared without `?` too. Avro: a block that is not whole, or damaged, is an error, and nothing of it is read. A file that is cut off or damaged is an error that names file and byte, after the whole
//! records before it were read.
//!
//! *`follow: true`* makes the source unbounded. Lines appended to uncompressed files are read as soon as they end in a line end. In a directory or
//! glob new files are found too, and only the last file by name is expected to grow: one that a later name has joined ends once all of it is
//! read. Compressed and binary files are read once, so move them into the directory when they are complete.
//!
//! # Sink
//! `path` is a directory of parts: `part-00000-00001.ndjson` is the second part of subtask 0. Each part is written under a hidden name in the same
//! directory, synced, and renamed when it is complete, so nothing half-written is ever visible. With `by: [origin, date]` parts stand in
//! `origin=JFK/date=2013-01-01/` and leave those columns out, as Hive does. A changelog gets the column `op` in front: `+I`, `-U`, `+U`, `-D`.
//! Avro parts have a schema made of the columns; a type that Avro does not have is written as the next one that holds its values (`Int8` as int,
//! seconds as milliseconds), or refused.
//!
//! *With checkpoints* every row appears exactly once: at a barrier the open parts end and stay hidden, and once the checkpoint is committed they
//! are renamed; what a crash left undone the next run does first. So parts are as large as the rows between two checkpoints, and numbers go on
//! from the largest that was given, at any parallelism. *Without*, parts appear when they roll and when all input has been written.
//!
//! Output of another run is an error, staged parts that it may still want included, unless `overwrite: true`. The old parts are then removed
//! directly before the first new one appears (or when the run ends without one), so a run that fails before leaves them as they were.

mod listing;
mod names;
mod part;
mod settings;
mod sink;
mod source;
pub(crate) mod sum;
mod target;

pub use settings::{FileFormat, SinkSettings, SourceSettings};
pub use sink::FilesSink;
pub use source::FilesSource;
pub(crate) use target::create_directory;

#[cfg(test)]
mod tests;
