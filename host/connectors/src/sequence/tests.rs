use std::{path::Path, sync::Arc, time::Duration};

use arrow_array::{cast::AsArray, types::Int64Type};
use futures::FutureExt;
use millstream_engine::connector::{Read, Source};
use serde_json::{Value, json};

use super::*;
use crate::testing::{check_resuming, clock, plan_source, read_all};

fn source(settings: Value) -> Arc<dyn Source> {
    plan_source(&Sequence, &settings, Path::new("."), None, clock()).expect("the settings are right")
}

async fn numbers(settings: Value) -> Vec<i64> {
    let source = source(settings);
    let rows = read_all(&*source, 3).await.expect("counts").rows(&source.schema());
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn it_counts_from_and_to_and_never_beyond() {
    assert_eq!(numbers(json!({ "to": 4 })).await, [0, 1, 2, 3, 4]);
    assert_eq!(numbers(json!({ "from": 5, "to": -2, "step": -3 })).await, [5, 2, -1]);
    assert!(numbers(json!({ "from": 1, "to": 0 })).await.is_empty());
    let (min, max) = (i64::MIN, i64::MAX);
    assert_eq!(numbers(json!({ "from": min, "to": max, "step": max })).await, [min, -1, max - 1]);
    assert!(!source(Value::Null).is_bounded());
}

#[tokio::test]
async fn a_reader_goes_on_at_any_position() {
    check_resuming(&*source(json!({ "from": 10, "to": 30 })), 4).await;
    check_resuming(&*source(json!({ "from": 10, "to": 30 })).project(&[]), 4).await;
}

#[tokio::test]
async fn a_rate_holds_numbers_back_until_the_clock_has_reached_them() {
    let clock = clock();
    let source = plan_source(&Sequence, &json!({ "rate": 10 }), Path::new("."), None, clock.clone()).expect("the settings are right");
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    for expected in [1, 3] {
        assert!(reader.read(100).now_or_never().is_none(), "nothing is due yet");
        clock.advance(Duration::from_millis(100 * expected));
        let Some(Ok(Read::Rows { batch, .. })) = reader.read(100).now_or_never() else { unreachable!("some are due") };
        assert_eq!(batch.num_rows() as u64, expected);
    }
}
