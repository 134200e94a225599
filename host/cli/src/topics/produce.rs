//! `millstream topics produce`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
    sync::Arc,
};

use clap::ValueEnum;
use millstream_connectors::kafka::{
    produce::{Record, Writer},
    settings::SinkSettings,
};
use millstream_engine::clock::SystemClock;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Found},
    failed, record,
};
use crate::{
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Largest record, unless the command line says otherwise: that of a sink.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// What a record may need beside its value, as a line: a key, headers, quotes.
const LINE_BYTES_MORE: u64 = 64 << 10;

/// Writes records to a topic: each line of standard input, or of a file, is one.
///
/// A line is the value as it is, unless something else is said. Records of the same key keep their order; they are acknowledged by all replicas
/// before the command ends.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | millstream topics produce greetings --servers localhost:9092
  millstream topics produce flights flights.ndjson --key-field tailnum --connection job.yaml
  printf 'N14228\\tlanded\\n' | millstream topics produce events --key-separator tab --servers localhost:9092
  millstream topics peek a --from earliest --json --servers localhost:9092 |
    millstream topics produce b --records --servers localhost:9092")]
pub struct Arguments {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The file [default: standard input].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines are objects of JSON, and this field is the key; it stays part of the value. A record whose field is null has no key.
    #[arg(long, value_name = "FIELD", group = "form")]
    key_field: Option<String>,
    /// Lines are a key, this character (or `tab`), and the value.
    #[arg(long, value_name = "TEXT", group = "form")]
    key_separator: Option<String>,
    /// Lines are whole records, as `millstream topics peek --json` prints them: key, value, headers, timestamp, partition.
    #[arg(long, group = "form")]
    records: bool,
    /// The partition of records that do not say it themselves [default: by the key].
    #[arg(long, short, value_name = "N")]
    partition: Option<u16>,
    /// Which partition a key goes to: as Kafka's Java clients do (murmur2), or as librdkafka's (crc32).
    #[arg(long, value_enum, default_value_t = Partitioner::Murmur2)]
    partitioner: Partitioner,
    /// How records are compressed.
    #[arg(long, value_enum, default_value_t = Compression::Lz4)]
    compression: Compression,
    /// The largest record, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = RECORD_BYTES_MAX)]
    message_bytes_max: u64,
    /// Print the number of records as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Partitioner {
    Murmur2,
    Crc32,
    Random,
}

#[derive(Clone, Copy, Debug, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Compression {
    None,
    Lz4,
    Snappy,
    Gzip,
    Zstd,
}

pub fn execute(arguments: &Arguments) -> Result<Exit, Failure> {
    let found = arguments.cluster.find()?;
    let settings = settings(arguments, &found)?;
    let written = machine::block_on(write(arguments, settings, &found))?;
    terminal::note(&match arguments.json {
        true => json!({ "topic": arguments.topic, "records": written }).to_string(),
        false => format!("{} written to `{}`", counted(written), arguments.topic),
    });
    Ok(Exit::Done)
}

/// A sink's, so that records are written as a job would write them.
fn settings(arguments: &Arguments, found: &Found) -> Result<SinkSettings, Failure> {
    let mut settings = found.settings.clone();
    settings["topic"] = arguments.topic.as_str().into();
    settings["format"] = "raw".into();
    settings["delivery"] = "at-least-once".into();
    settings["partitioner"] = json!(arguments.partitioner);
    settings["compression"] = json!(arguments.compression);
    settings["message-bytes-max"] = arguments.message_bytes_max.into();
    let settings: SinkSettings = serde_json::from_value(settings).map_err(|error| Failure::from_error(Exit::Invalid, &error))?;
    let mut problems = Vec::new();
    settings.check(&mut problems);
    match problems.first() {
        Some(problem) => Err(Failure::new(Exit::Invalid, format!("--{} {}", problem.path, problem.message))),
        None => Ok(settings),
    }
}

async fn write(arguments: &Arguments, settings: SinkSettings, found: &Found) -> Result<u64, Failure> {
    let mut lines = Lines::open(arguments)?;
    let writer = Writer::open(settings, &found.base, Arc::new(SystemClock)).await.map_err(|error| failed(&error))?;
    let mut written = 0;
    let ended = loop {
        match lines.next() {
            Ok(Some(record)) => {
                writer.write(&record).await.map_err(|error| failed(&error))?;
                written += 1;
            }
            Ok(None) => break Ok(written),
            Err(failure) => break Err(failure),
        }
    };
    writer.finish().await.map_err(|error| failed(&error))?;
    ended.map_err(|failure| failure.fix(format!("correct it; before it {} written", counted(written))))
}

/// `1 record`, `1,234 records`.
fn counted(records: u64) -> String {
    format!("{} record{}", terminal::grouped(records), if records == 1 { "" } else { "s" })
}

/// The lines of the input, each as a record.
struct Lines<'a> {
    arguments: &'a Arguments,
    input: Box<dyn BufRead>,
    separator: Option<&'a str>,
    /// The number of the last line.
    line: u64,
}

impl<'a> Lines<'a> {
    fn open(arguments: &'a Arguments) -> Result<Self, Failure> {
        let input: Box<dyn BufRead> = match &arguments.file {
            None => Box::new(io::stdin().lock()),
            Some(file) => Box::new(BufReader::new(
                File::open(file)
                    .map_err(|error| Failure::new(Exit::Invalid, format!("`{}` cannot be read", file.display())).because(&error))?,
            )),
        };
        let separator = arguments.key_separator.as_deref().map(|text| if text == "tab" { "\t" } else { text });
        if separator == Some("") {
            return Err(Failure::new(Exit::Invalid, "--key-separator is empty"));
        }
        Ok(Self { arguments, input, separator, line: 0 })
    }

    /// The next record; none: there are no more.
    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let longest = self.arguments.message_bytes_max.saturating_add(LINE_BYTES_MORE);
        loop {
            let mut line = Vec::new();
            let read = (&mut self.input).take(longest + 1).read_until(b'\n', &mut line);
            self.line += 1;
            let read = read.map_err(|error| Failure::new(Exit::Failed, "the input cannot be read further").because(&error))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > longest {
                return Err(self.wrong(&format!("it is longer than {longest} bytes: raise --message-bytes-max")));
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // JSON has nothing to say there; a value may be empty.
            if self.is_json() && line.trim_ascii().is_empty() {
                continue;
            }
            let mut record = self.record(line).map_err(|why| self.wrong(&why))?;
            record.partition = record.partition.or(self.arguments.partition.map(i32::from));
            return Ok(Some(record));
        }
    }

    fn is_json(&self) -> bool {
        self.arguments.records || self.arguments.key_field.is_some()
    }

    fn record(&self, line: &[u8]) -> Result<Record, String> {
        let text = || std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned());
        if self.arguments.records {
            return record::from_json(text()?);
        }
        if let Some(field) = &self.arguments.key_field {
            return Ok(Record { key: key(text()?, field)?, value: Some(line.to_vec()), ..Record::default() });
        }
        let Some(separator) = self.separator else { return Ok(Record { value: Some(line.to_vec()), ..Record::default() }) };
        let at = line.windows(separator.len()).position(|part| part == separator.as_bytes());
        let at = at.ok_or_else(|| format!("there is no `{}` behind a key", separator.escape_default()))?;
        Ok(Record { key: Some(line[..at].to_vec()), value: Some(line[at + separator.len()..].to_vec()), ..Record::default() })
    }

    fn wrong(&self, why: &str) -> Failure {
        let file = self.arguments.file.as_ref().map_or_else(|| "standard input".to_owned(), |file| file.display().to_string());
        Failure::new(Exit::Invalid, format!("line {} of {file}: {why}", self.line))
    }
}

/// The key that a field of a line of JSON says: text as it is, other values as JSON writes them.
fn key(line: &str, field: &str) -> Result<Option<Vec<u8>>, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("it is no JSON ({error})"))?;
    match value.get(field) {
        None => Err(format!("it has no field `{field}`")),
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(other) => Ok(Some(other.to_string().into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_a_field_says() {
        assert_eq!(key(r#"{"a":"x"}"#, "a"), Ok(Some(b"x".to_vec())));
        assert_eq!(key(r#"{"a":17}"#, "a"), Ok(Some(b"17".to_vec())));
        assert_eq!(key(r#"{"a":null}"#, "a"), Ok(None));
        assert!(key(r#"{"a":1}"#, "b").is_err() && key("7", "a").is_err() && key("{", "a").is_err());
    }
}
