//! Migration of state: what a guest answers is checked, and what does not fit into one call goes in several.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, Int64Array, StringArray};
use arrow_schema::DataType;
use millstream_wasm::{Error, Failure, Limit, LimitExceeded, Limits, MigrationInstance, OldState, World};

use crate::{
    context,
    contract::{Column, int64},
    limits, load,
    puppet::{self, Act, Puppet},
    runtime_with,
};

fn numbers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// An operator whose `migrate` does this.
fn puppet(migrate: impl FnOnce(&mut Puppet) -> Act) -> Arc<[u8]> {
    let mut puppet = Puppet::silent();
    puppet.migrate = Some(migrate(&mut puppet));
    puppet.component()
}

/// One that gives every column back as it is.
fn unchanging() -> Arc<[u8]> {
    puppet(|puppet| {
        let Act::Answer(answer) = puppet.answer::<Result<Column, String>>(&Ok(int64(&[]))) else {
            unreachable!("answers lie at an address");
        };
        puppet::give_back(answer, 5)
    })
}

async fn instance(bytes: Arc<[u8]>) -> MigrationInstance {
    load(bytes).await.expect("loads").migration(context()).await.expect("starts")
}

fn old(values: &ArrayRef) -> OldState<'_> {
    OldState { name: "seen", version: 1, values }
}

/// What the host says to a `migrate` that does this with three numbers; the instance is spent then.
async fn said_to(migrate: impl FnOnce(&mut Puppet) -> Act) -> String {
    let mut instance = instance(puppet(migrate)).await;
    let values = numbers(&[Some(1), Some(2), Some(3)]);
    let failure = instance.migrate(old(&values), &DataType::Int64).await.expect_err("it fails");
    let again = instance.migrate(old(&values), &DataType::Int64).await.expect_err("spent");
    assert!(again.to_string().contains("spent"), "{again}");
    failure.to_string()
}

#[tokio::test]
async fn values_come_back_and_nulls_stay_null() {
    let values = numbers(&[Some(7), None, Some(-1)]);
    assert_eq!(&instance(unchanging()).await.migrate(old(&values), &DataType::Int64).await.expect("migrates"), &values);
}

#[tokio::test]
async fn what_is_too_much_for_one_call_goes_in_several() {
    let runtime = runtime_with(Limits { bytes_into_call: 200, ..limits() });
    let component = runtime.load(unchanging(), "puppet.wasm").await.expect("loads");
    let mut instance = component.migration(context()).await.expect("starts");
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    assert_eq!(&instance.migrate(old(&values), &DataType::Int64).await.expect("migrates"), &values);
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(201)]));
    let failure = instance.migrate(old(&long), &DataType::Utf8).await.expect_err("one value that is too large");
    assert!(matches!(failure, Failure::Limit(LimitExceeded { limit: Limit::BytesIntoCall, max: 200, .. })), "{failure}");
}

#[tokio::test]
async fn a_migration_that_lies_is_refused() {
    let answering = |column: Column| move |puppet: &mut Puppet| puppet.answer::<Result<Column, String>>(&Ok(column));
    assert!(said_to(answering(int64(&[1, 2]))).await.contains("2 values for 3 of state `seen`"));
    assert!(said_to(answering(int64(&[1, 2, 3, 4]))).await.contains("4 values for 3 of state `seen`"));
    let nothing = Column { buffers: crate::contract::Buffers::Of(vec![]), ..int64(&[1, 2, 3]) };
    assert!(said_to(answering(nothing)).await.contains("buffer is missing"));
    let mut with_null = int64(&[1, 2, 3]);
    let crate::contract::Buffers::Of(buffers) = &mut with_null.buffers else { unreachable!("numbers have buffers") };
    buffers[0] = vec![0b101];
    assert!(said_to(answering(with_null)).await.contains("null for value 1 of state `seen`"));
    let short = Column { length: 3, ..int64(&[1]) };
    assert!(said_to(answering(short)).await.contains("seen"));
}

#[tokio::test]
async fn a_migration_that_fails_says_in_which_call() {
    let said = said_to(|_| puppet::trap()).await;
    assert!(said.contains("operator `op` (component `puppet.wasm`) in `migrate` trapped"), "{said}");
    let said = said_to(|_| puppet::loop_for_ever()).await;
    assert!(said.contains("in `migrate` exceeded the limit of 50 for CPU time per call"), "{said}");
    let said = said_to(|_| puppet::grow_for_ever()).await;
    assert!(said.contains("memory in bytes"), "{said}");
    let said = said_to(|puppet| puppet.answer::<Result<Column, String>>(&Err("no such thing".into()))).await;
    assert!(said.contains("no such thing"), "{said}");
}

#[tokio::test]
async fn only_a_component_that_exports_it_migrates() {
    let component = load(Puppet::silent().component()).await.expect("loads");
    assert!(!component.migrates());
    let error = component.migration(context()).await.err().expect("it does not migrate");
    assert!(matches!(&error, Error::WorldMismatch { reason, .. } if reason.contains("`migration`")), "{error}");
    let component = load(unchanging()).await.expect("loads");
    assert!(component.migrates());
    assert_eq!(component.inspection().worlds, [World::MigratingOperator]);
    let values = numbers(&[None]);
    let mut instance = component.migration(context()).await.expect("starts");
    assert!(instance.migrate(old(&values), &DataType::Int64).await.expect("migrates").is_null(0));
}
