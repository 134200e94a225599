//! What a row costs in the window operators alone, in ns of CPU: the windows of Nexmark's q5, q7, q11 and q12 over bids in its proportions,
//! and sliding windows with more and more overlap.
//!
//! `cargo bench -p millstream-engine --bench windows [name]`. Batches of 1,024 rows with a watermark after each, as sources send them.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::{path::Path, sync::Arc};

use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cpu_time::ThreadTime;
use millstream_engine::{
    clock::ManualClock,
    graph::RowOrder,
    operator::{Moment, Operator, OperatorContext, OperatorError, Output, StateContext},
    operators::{ComponentLoader, Environment, PlanRequest, registry},
};
use millstream_model::{
    Batch, StreamType, Watermark,
    ids::{JobId, OperatorId, SubtaskIndex, TenantId},
    key::KEY_GROUPS,
};
use millstream_wasm::{Silent, SubtaskLog};
use serde_json::{Value, json};

const ROWS: usize = 8_000_000;
const BATCH_ROWS: usize = 1_024;
const SAMPLES: usize = 3;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let count = || json!({ "n": { "count": "*" } });
    let top = || json!({ "price": { "max": "price" }, "auction": { "max-by": "price", "value": "auction" }, "bidder": { "max-by": "price", "value": "bidder" } });
    let cases: Vec<(&str, Option<&str>, Value)> = vec![
        (
            "q5 sliding 10s/2s, count per auction",
            Some("auction"),
            json!({ "sliding": { "size": "10s", "slide": "2s" }, "aggregates": count() }),
        ),
        ("q7 tumbling 10s, highest bid", None, json!({ "tumbling": "10s", "aggregates": top() })),
        ("q11 session 10s, count per bidder", Some("bidder"), json!({ "session": "10s", "aggregates": count() })),
        ("q12 tumbling 10s, count per bidder", Some("bidder"), json!({ "tumbling": "10s", "aggregates": count() })),
        ("tumbling 10s, five aggregates per bidder", Some("bidder"), five_aggregates()),
        ("sliding 10s/1s", Some("auction"), json!({ "sliding": { "size": "10s", "slide": "1s" }, "aggregates": count() })),
        ("sliding 100s/1s", Some("auction"), json!({ "sliding": { "size": "100s", "slide": "1s" }, "aggregates": count() })),
        ("count 100 per bidder", Some("bidder"), json!({ "count": 100, "aggregates": count() })),
        ("session 10s, all rows", None, json!({ "session": "10s", "aggregates": count() })),
    ];
    let batches = bids();
    for (name, key, settings) in cases {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let mut samples: Vec<(f64, usize)> = (0..SAMPLES).map(|_| sample(&batches, key, &settings)).collect();
        samples.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (ns, results) = samples[SAMPLES / 2];
        println!("{name:45} {ns:7.1} ns/row {:8.1} M rows/s {results:9} results", 1_000.0 / ns);
    }
}

fn five_aggregates() -> Value {
    json!({ "tumbling": "10s", "aggregates": {
        "n": { "count": "*" }, "sum": { "sum": "price" }, "mean": { "avg": "price" }, "max": { "max": "price" }, "last": { "last": "auction" } } })
}

fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![column("auction"), column("bidder"), column("price")]))
}

/// Bids in Nexmark's proportions: 10,000 events a second of which 92 % are bids; half of them for the hot auction, three quarters by the hot
/// bidder, the others spread over the newest auctions and persons.
fn bids() -> Vec<Batch> {
    let mut random = 0x853c_49e6_748f_ea9b_u64;
    let mut next = move |below: i64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as i64
    };
    let mut batches = Vec::with_capacity(ROWS / BATCH_ROWS);
    for batch in 0..ROWS / BATCH_ROWS {
        let (mut auctions, mut bidders, mut prices, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in 0..BATCH_ROWS {
            let event = ((batch * BATCH_ROWS + row) * 50 / 46) as i64;
            let (newest_auction, newest_person) = (event / 50 * 3 + 1_000, event / 50 + 1_000);
            auctions.push(if next(2) == 0 { newest_auction / 100 * 100 } else { newest_auction - next(100) });
            bidders.push(if next(4) != 0 { newest_person / 100 * 100 + 1 } else { newest_person - next(1_000) });
            prices.push(100 + next(100_000_000));
            times.push(event / 10);
        }
        let columns = [auctions, bidders, prices].map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
        let rows = Batch::try_new(schema(), columns.to_vec(), BATCH_ROWS).expect("the columns fit the schema");
        batches.push(rows.with_event_times(Some(times.into())));
    }
    batches
}

struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        Err(millstream_wasm::Error::Unreadable { component: path.to_string_lossy().into(), source: std::io::ErrorKind::NotFound.into() })
    }
}

fn operator(runtime: &tokio::runtime::Runtime, key: Option<&str>, settings: &Value) -> Box<dyn Operator> {
    let kind = registry().iter().find(|kind| kind.key == "window").expect("windows are in the registry");
    let spec = (kind.parse)(settings.clone()).expect("it is planned");
    let clock = Arc::new(ManualClock::at(0));
    let environment = Environment { base_directory: Path::new(""), components: &NoComponents, clock: clock.clone() };
    let keys = key.map(|key| vec![vec![schema().index_of(key).expect("the key is a column")]]);
    let inputs = [StreamType { schema: schema(), event_times: true, changes: false }];
    let id = OperatorId::from("bench");
    let request = PlanRequest {
        id: &id,
        inputs: &inputs,
        keys: keys.as_deref(),
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: None,
    };
    let planned = runtime.block_on(spec.plan(request)).expect("it is planned");
    let context = OperatorContext {
        tenant: TenantId::local(),
        job: JobId::from("bench"),
        operator: id,
        subtask: SubtaskIndex(0),
        parallelism: 1,
        key_groups: 0..KEY_GROUPS,
        state: StateContext { directory: None, shared: None, memory_budget_bytes: 1 << 30 },
        log: SubtaskLog::new(Silent),
        restored: None,
        metrics: Arc::default(),
        clock,
    };
    runtime.block_on(planned.plan.create(context)).expect("the operator opens")
}

/// One run over all batches: ns per row, and the number of results.
fn sample(batches: &[Batch], key: Option<&str>, settings: &Value) -> (f64, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let mut operator = operator(&runtime, key, settings);
    let started = ThreadTime::now();
    let results = runtime.block_on(run(&mut *operator, batches)).expect("the operator takes the rows");
    (started.elapsed().as_nanos() as f64 / (batches.len() * BATCH_ROWS) as f64, results)
}

async fn run(operator: &mut dyn Operator, batches: &[Batch]) -> Result<usize, OperatorError> {
    let mut results = 0;
    let mut now = Moment { watermark: None, processing_time: 0 };
    for batch in batches {
        let mut out = Output::default();
        operator.on_batch(0, batch.clone(), now, &mut out).await?;
        let newest = batch.event_times().expect("bids have event times")[BATCH_ROWS - 1];
        results += count(&mut out);
        results += advance(operator, &mut now, Watermark(newest - 1)).await?;
    }
    results += advance(operator, &mut now, Watermark::MAX).await?;
    Ok(results)
}

async fn advance(operator: &mut dyn Operator, now: &mut Moment, to: Watermark) -> Result<usize, OperatorError> {
    now.watermark = Some(to);
    let mut results = 0;
    loop {
        let mut out = Output::default();
        operator.on_watermark(*now, &mut out).await?;
        results += count(&mut out);
        if !operator.has_more() {
            return Ok(results);
        }
    }
}

fn count(out: &mut Output) -> usize {
    out.take_emitted().iter().map(|(_, batch)| batch.num_rows()).sum()
}
