//! Events per CPU-second of the nexmark generator: all columns, and the numeric ones only. Events are those of all three kinds that a job needs:
//! each kind is read from its own source, one after the other.
//!
//! `cargo bench -p millstream-connectors --bench nexmark` prints one JSON object per figure.

use std::{fs, sync::Arc};

use arrow_schema::DataType;
use millstream_connectors::nexmark::Nexmark;
use millstream_engine::{
    clock::ManualClock,
    connector::{ConnectorRequest, Read, Source, SourceConnector},
};
use serde_json::json;

const EVENTS: u64 = 20_000_000;
const SAMPLES: usize = 5;
const BATCH_ROWS: usize = 8_192;

/// Label, the columns it asks for, and the bound in events per CPU-second.
type Figure = (&'static str, fn(&DataType) -> bool, f64);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let figures: [Figure; 2] = [
        ("nexmark generator, all columns", |_| true, 4e6),
        ("nexmark generator, numeric columns", |data_type| *data_type != DataType::Utf8, 25e6),
    ];
    for (name, takes, bound) in figures {
        let mut samples: Vec<f64> = (0..SAMPLES).map(|seed| runtime.block_on(sample(seed, takes))).collect();
        samples.sort_by(f64::total_cmp);
        let median = samples[SAMPLES / 2];
        let how = format!("{EVENTS} events of all kinds, one thread, median of {SAMPLES}, batches of {BATCH_ROWS} rows");
        let figure =
            json!({ "name": name, "value": median.round(), "unit": "events/CPU-s", "bound": bound, "met": median >= bound, "how": how });
        #[expect(clippy::print_stdout, reason = "the figures are the output")]
        {
            println!("{figure}");
        }
    }
}

async fn sample(seed: usize, takes: fn(&DataType) -> bool) -> f64 {
    let start = cpu_seconds();
    for stream in ["person", "auction", "bid"] {
        let source = source(stream, seed);
        let columns: Vec<usize> =
            (0..source.schema().fields().len()).filter(|&column| takes(source.schema().field(column).data_type())).collect();
        drain(source.project(&columns)).await;
    }
    EVENTS as f64 / (cpu_seconds() - start)
}

fn source(stream: &str, seed: usize) -> Arc<dyn Source> {
    let settings = json!({ "stream": stream, "events": EVENTS, "seed": seed });
    let clock = Arc::new(ManualClock::at(0));
    let request = ConnectorRequest {
        id: stream,
        settings: &settings,
        base_directory: ".".into(),
        declared_schema: None,
        input: None,
        clock,
        state_directory: None,
    };
    Nexmark.plan(request).expect("the settings are right")
}

async fn drain(source: Arc<dyn Source>) {
    for split in source.splits(1).await.expect("a generator has splits") {
        let mut reader = source.open(&split, None).await.expect("a generator opens");
        while let Read::Rows { batch, .. } = reader.read(BATCH_ROWS).await.expect("a generator does not fail") {
            std::hint::black_box(batch);
        }
    }
}

/// User and system time of this process, from `/proc/self/stat` (proc(5)): fields 14 and 15, in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let after_name = stat.rsplit_once(')').expect("the name ends").1;
    let fields: Vec<f64> = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse().expect("a number")).collect();
    fields.iter().sum::<f64>() / 100.0
}
