//! `millstream topics peek`.

use std::{
    io::{self, BufWriter, Write as _},
    ops::ControlFlow,
};

use millstream_connectors::kafka::{
    inspect::{From, HeldUp, Look, Record, Viewer},
    settings::Isolation,
};
use serde_json::Value;

use super::{cluster::Cluster, failed, record};
use crate::{
    report::{Exit, Failure},
    terminal,
};

/// Shows the records of a topic: partition and offset, timestamp, key, value, headers.
///
/// It joins no group and leaves no trace. Records of transactions are seen when they are committed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream topics peek flights --servers localhost:9092              the last 10 of each partition
  millstream topics peek flights --from earliest -n 5 --servers localhost:9092
  millstream topics peek flights --from 2026-01-05T00:00:00Z --connection job.yaml
  millstream topics peek flights --partition 2 --from 1700 --servers localhost:9092
  millstream topics peek alerts --follow --json --connection job.yaml | jq .value.tailnum")]
pub struct Arguments {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Where to begin, in each partition: earliest, latest, -N (so many before its end), an offset, or the time of a record, as 2026-01-05T00:00:00Z
    /// [default: -10].
    #[arg(long, value_name = "WHERE", value_parser = from, allow_hyphen_values = true)]
    from: Option<From>,
    /// Go on with records to come; otherwise it ends where the topic ends now.
    #[arg(long, short)]
    follow: bool,
    /// End after so many records.
    #[arg(long, short = 'n', value_name = "N")]
    number: Option<u64>,
    /// Only this partition; may be given several times.
    #[arg(long, short, value_name = "N")]
    partition: Vec<i32>,
    /// Only records with this key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Show records of transactions that are not committed too, also of those that never will be.
    #[arg(long)]
    uncommitted: bool,
    /// Print one JSON object per record, which `millstream topics produce --records` reads.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

pub fn execute(arguments: &Arguments) -> Result<Exit, Failure> {
    let isolation = if arguments.uncommitted { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
    let look = Look {
        topic: arguments.topic.clone(),
        partitions: arguments.partition.clone(),
        from: arguments.from.unwrap_or(From::Last(10)),
        follow: arguments.follow,
    };
    let found = arguments.cluster.find()?;
    let viewer = Viewer::new(&found.connection, &found.base, isolation).map_err(|error| failed(&error))?;
    let printer = std::cell::RefCell::new(Printer::new(arguments));
    let looked = viewer.look(&look, |record| printer.borrow_mut().show(record), || printer.borrow_mut().flush());
    // What was seen before a failure is shown before it.
    let _gone = printer.borrow_mut().flush();
    for HeldUp { partition, offset } in looked.map_err(|error| failed(&error))? {
        terminal::note(&format!(
            "partition {partition}: a transaction is open at offset {offset}, and nothing from there on was read; `--uncommitted` shows it"
        ));
    }
    Ok(Exit::Done)
}

/// Prints records until there are enough, or nobody reads any more.
struct Printer<'a> {
    arguments: &'a Arguments,
    left: Option<u64>,
    to: BufWriter<anstream::AutoStream<io::StdoutLock<'static>>>,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        Self { arguments, left: arguments.number, to: BufWriter::new(anstream::AutoStream::auto(io::stdout().lock())) }
    }

    fn show(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        if self.left == Some(0) {
            return ControlFlow::Break(());
        }
        if self.arguments.key.as_ref().is_some_and(|key| record.key != Some(key.as_bytes())) {
            return ControlFlow::Continue(());
        }
        let line = if self.arguments.json { record::to_json(&self.arguments.topic, record) } else { record::to_text(record) };
        self.left = self.left.map(|left| left - 1);
        let written = writeln!(self.to, "{}", terminal::sayable(&line));
        // Who follows wants to see it now.
        let written = if self.arguments.follow { written.and_then(|()| self.to.flush()) } else { written };
        match written {
            Ok(()) if self.left != Some(0) => ControlFlow::Continue(()),
            // Enough, or the reader has left, which is its own decision.
            Ok(()) | Err(_) => ControlFlow::Break(()),
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if self.to.flush().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn from(text: &str) -> Result<From, String> {
    let said = || format!("`{text}` is none of earliest, latest, -N, an offset, or a time such as 2026-01-05T00:00:00Z");
    match text {
        "earliest" => return Ok(From::Earliest),
        "latest" => return Ok(From::Latest),
        _ => {}
    }
    if let Some(last) = text.strip_prefix('-') {
        return last.parse().map(From::Last).map_err(|_| said());
    }
    if let Ok(offset) = text.parse::<u64>() {
        return i64::try_from(offset).map(From::Offset).map_err(|_| said());
    }
    record::instant(&Value::from(text)).map(From::At).map_err(|_| said())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_where_it_is_said() {
        assert_eq!(from("earliest"), Ok(From::Earliest));
        assert_eq!(from("-3"), Ok(From::Last(3)));
        assert_eq!(from("17"), Ok(From::Offset(17)));
        assert_eq!(from("2023-11-14T22:13:20Z"), Ok(From::At(1_700_000_000_000)));
        for nonsense in ["", "-", "--3", "yesterday", "1.5", "18446744073709551615"] {
            assert!(from(nonsense).is_err(), "{nonsense}");
        }
    }
}
