use std::{path::Path, sync::Arc, time::Duration};

use arrow_array::{Int64Array, cast::AsArray, types::Int64Type};
use arrow_cast::pretty::pretty_format_batches;
use futures::FutureExt;
use millstream_engine::connector::{Read, Source};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{check_resuming, clock, plan_source, read_all};

fn source(settings: Value) -> Arc<dyn Source> {
    plan_source(&Nexmark, &settings, Path::new("."), None, clock()).expect("the settings are right")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts").block_on(future)
}

async fn table(settings: Value) -> String {
    let source = source(settings);
    let rows = read_all(&*source, 1_000).await.expect("generates").rows(&source.schema());
    pretty_format_batches(&[rows]).expect("prints").to_string()
}

/// The data are part of the interface: results that were computed from them must not change.
#[tokio::test]
async fn the_first_events_are_these() {
    insta::assert_snapshot!("persons", table(json!({ "stream": "person", "events": 150 })).await);
    insta::assert_snapshot!("auctions", table(json!({ "stream": "auction", "events": 60 })).await);
    insta::assert_snapshot!("bids", table(json!({ "stream": "bid", "events": 60 })).await);
    insta::assert_snapshot!("bids_out_of_order", table(json!({ "stream": "bid", "events": 20, "out-of-order": 7, "seed": 1 })).await);
}

#[tokio::test]
async fn of_fifty_events_one_is_a_person_three_are_auctions_and_46_are_bids() {
    for (stream, expected) in [("person", 21), ("auction", 60), ("bid", 920)] {
        let all = read_all(&*source(json!({ "stream": stream, "events": 1_001 })), 100).await.expect("generates");
        assert_eq!(all.positions().len(), expected, "{stream}");
    }
}

#[tokio::test]
async fn half_of_the_bids_go_to_the_hot_auction_and_three_quarters_come_from_the_hot_bidder() {
    let source = source(json!({ "stream": "bid", "events": 1_000_000, "splits": 1 }));
    let rows = read_all(&*source.project(&[0, 1]), 8_192).await.expect("generates").rows(&source.project(&[0, 1]).schema());
    let share = |column: usize, is_hot: fn(i64) -> bool| {
        let values: &Int64Array = rows.column(column).as_primitive::<Int64Type>();
        values.values().iter().filter(|&&value| is_hot(value)).count() as f64 / rows.num_rows() as f64
    };
    let (auctions, bidders) = (share(0, |id| id % 100 == 0), share(1, |id| id % 100 == 1));
    assert!((0.500..0.510).contains(&auctions), "{auctions}");
    assert!((0.750..0.760).contains(&bidders), "{bidders}");
}

#[tokio::test]
async fn a_reader_goes_on_at_any_position() {
    check_resuming(&*source(json!({ "stream": "bid", "events": 2_000, "splits": 3, "out-of-order": 100 })), 97).await;
}

#[tokio::test]
async fn a_rate_holds_events_back_until_the_clock_has_reached_them() {
    let clock = clock();
    let settings = json!({ "stream": "bid", "rate": 1_000 });
    let source = plan_source(&Nexmark, &settings, Path::new("."), None, clock.clone()).expect("the settings are right");
    assert!(!source.is_bounded());
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    assert!(reader.read(8_192).now_or_never().is_none(), "nothing is due yet");
    clock.advance(Duration::from_millis(50));
    let Some(Ok(Read::Rows { batch, .. })) = reader.read(8_192).now_or_never() else { unreachable!("50 events are due") };
    assert_eq!(batch.num_rows(), 46);
    assert!(reader.read(8_192).now_or_never().is_none(), "no more are due");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let problem = |settings: Value| plan_source(&Nexmark, &settings, Path::new("."), None, clock()).err().expect("refused").remove(0);
    assert_eq!(problem(json!({ "stream": "bid", "out-of-order": 1906 })).path, "out-of-order");
    assert_eq!(problem(json!({ "stream": "bid", "event-rate": 0 })).path, "event-rate");
    assert_eq!(problem(json!({ "stream": "bid", "start-ms": i64::MAX })).path, "start-ms");
    assert!(problem(json!({ "stream": "bids" })).message.contains("`person`, `auction`, `bid`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the events are cut into splits, shuffled, projected and batched, each appears once and with the same values.
    #[test]
    fn splits_and_order_do_not_change_the_events(
        stream in prop::sample::select(vec!["person", "auction", "bid"]),
        events in 0_u64..3_000, splits in 1_u32..7, shuffle in 1_u64..200, seed: u64, rows_max in 1_usize..500,
    ) {
        let values = |settings: Value, projected: bool| {
            let source = source(settings);
            let all: Vec<usize> = (0..source.schema().fields().len()).collect();
            let source = if projected { source.project(&all) } else { source };
            let everything = block_on(read_all(&*source, rows_max)).expect("generates");
            let rows = everything.rows(&source.schema());
            let text = pretty_format_batches(&[rows]).expect("prints").to_string();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let whole = values(json!({ "stream": stream, "events": events, "seed": seed, "splits": 1 }), false);
        let cut = values(json!({ "stream": stream, "events": events, "seed": seed, "splits": splits, "out-of-order": shuffle }), true);
        prop_assert_eq!(whole, cut);
    }
}
