//! Bad input of issue 3, section 9: components that lie, loop, grow, recurse and trap. Each gets an error that says which.

use std::time::Duration;

use arrow_array::Int64Array;
use arrow_schema::DataType;
use millstream_hostile::guests::{self, adding, remembering};
use millstream_wasm::{Call, Error, Failure, InputSchema, InstanceContext, Limit, LimitExceeded, Limits, OperatorInstance};
use wasm_encoder::Instruction;

use crate::{
    contract::{self, Buffers, Column, Output, Planned, Turn, Updates, field, i64s, int64, u32s, utf8},
    input, instance, keyed_rows, load, opened, process,
    puppet::{self, Act, Puppet, descriptor, planned},
    rows, runtime_with,
};

const ROWS: u32 = 4;

fn output(length: u32, columns: Vec<Column>) -> Output {
    Output { port: 0, from: vec![], length, event_times: vec![], changes: vec![], columns }
}

fn emitting(output: Output) -> Turn {
    Turn { outputs: vec![output], ..Turn::default() }
}

fn updating(updates: Updates) -> Turn {
    Turn { updates, ..Turn::default() }
}

/// What the host says to this answer for four rows with a key each.
async fn said_to(planned: Planned, turn: Turn) -> String {
    let keyed = planned.inputs[0].keyed;
    let (mut instance, _) = opened(Puppet::new(planned, turn).component(), input(&[("n", DataType::Int64)])).await;
    let values = vec![std::sync::Arc::new(Int64Array::from(vec![None; ROWS as usize])) as _];
    let rows = if keyed { keyed_rows(ROWS, values) } else { rows(ROWS) };
    let failure = process(&mut instance, rows.clone()).await.expect_err("the answer is refused");
    assert!(matches!(failure, Failure::Refused { .. } | Failure::Limit(_)), "{failure}");
    let again = process(&mut instance, rows).await.expect_err("the instance is spent");
    assert!(again.to_string().contains("spent"), "{again}");
    failure.to_string()
}

macro_rules! assert_says {
    ($said:expr, $($part:literal),+) => {{
        let said = $said;
        $(assert!(said.contains($part), "{said:?} lacks {:?}", $part);)+
        assert!(said.contains("puppet.wasm") && said.contains("`op`"), "{said:?} names neither component nor operator");
    }};
}

// ---- lies about columns ----

#[tokio::test]
async fn a_column_of_another_length_than_its_output_is_refused() {
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![int64(&[1, 2, 3])]))).await, "3 values instead of 4");
}

#[tokio::test]
async fn too_few_bytes_for_the_values_are_refused() {
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![], vec![0; 31]]) };
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![column]))).await, "31 bytes for 4 values", "`added`");
}

#[tokio::test]
async fn a_missing_buffer_is_refused() {
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![]]) };
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![column]))).await, "values buffer is missing");
}

#[tokio::test]
async fn a_buffer_too_many_is_refused() {
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![], vec![0; 32], vec![1]]) };
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![column]))).await, "1 buffers too many");
}

#[tokio::test]
async fn a_validity_bitmap_that_is_too_short_is_refused() {
    let column = Column { length: 9, buffers: Buffers::Of(vec![vec![0xff], vec![0; 72]]) };
    let mut emitted = output(9, vec![column]);
    emitted.from = u32s(&[0; 9]);
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "bitmap of 1 bytes for 9 bits");
}

#[tokio::test]
async fn offsets_that_decrease_are_refused() {
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[0, 2, 1, 3, 4], b"abcd")]))).await, "offsets decrease");
}

#[tokio::test]
async fn offsets_that_do_not_begin_at_zero_are_refused() {
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[1, 2, 3, 4, 4], b"abcd")]))).await, "do not begin at 0");
}

#[tokio::test]
async fn offsets_past_the_data_are_refused() {
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[0, 1, 2, 3, 400], b"abcd")]))).await, "end at 400");
}

#[tokio::test]
async fn negative_offsets_are_refused() {
    let negative = (-1_i32).cast_unsigned();
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[0, negative, 2, 3, 4], b"abcd")]))).await, "offsets decrease");
}

#[tokio::test]
async fn offsets_of_a_list_past_its_items_are_refused() {
    let column = Column { length: 1, buffers: Buffers::Of(vec![vec![], u32s(&[0, 1_000_000]), vec![], vec![0; 8]]) };
    let mut emitted = output(1, vec![column]);
    emitted.from = u32s(&[0]);
    assert_says!(said_to(adding("List(Int64)"), emitting(emitted)).await, "8 bytes for 1000000 values");
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[0, 1, 2, 3, 4], b"ab\xffd")]))).await, "not UTF-8 at byte 2");
}

#[tokio::test]
async fn an_offset_within_a_character_is_refused() {
    assert_says!(said_to(adding("Utf8"), emitting(output(4, vec![utf8(4, &[0, 1, 2, 3, 4], "aäb".as_bytes())]))).await, "cuts a character");
}

#[tokio::test]
async fn nulls_in_a_column_without_nulls_are_refused() {
    let mut plan = adding("Int64");
    plan.outputs[0].adds[0].nullable = false;
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![0b0111], vec![0; 32]]) };
    assert_says!(said_to(plan, emitting(output(4, vec![column]))).await, "has nulls");
}

#[tokio::test]
async fn nulls_in_a_nested_value_without_nulls_are_refused() {
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![], vec![0b0111], vec![0; 32]]) };
    assert_says!(said_to(adding("Struct(\"a\": non-null Int64)"), emitting(output(4, vec![column]))).await, "null");
}

#[tokio::test]
async fn a_decimal_beyond_its_precision_is_refused() {
    let column = Column { length: 4, buffers: Buffers::Of(vec![vec![], vec![0x7f; 64]]) };
    assert_says!(said_to(adding("Decimal128(5, 2)"), emitting(output(4, vec![column]))).await, "Decimal128(5, 2)");
}

#[tokio::test]
async fn a_buffer_outside_of_memory_is_refused() {
    let column = Column { length: 4, buffers: Buffers::At(0xffff_fff0, 64) };
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![column]))).await, "process");
}

// ---- lies about rows ----

#[tokio::test]
async fn a_row_from_a_row_that_does_not_exist_is_refused() {
    let emitted = Output { from: u32s(&[0, 4]), ..output(2, vec![int64(&[1, 2])]) };
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "`from` names row 4 of 4");
}

#[tokio::test]
async fn from_of_another_length_is_refused() {
    let emitted = Output { from: u32s(&[0, 1, 2]), ..output(2, vec![int64(&[1, 2])]) };
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "3 rows for 2 output rows");
    let emitted = Output { from: vec![0; 7], ..output(2, vec![int64(&[1, 2])]) };
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "no multiple of 4");
}

#[tokio::test]
async fn rows_from_nowhere_without_event_times_are_refused() {
    assert_says!(said_to(adding("Int64"), emitting(output(2, vec![int64(&[1, 2])]))).await, "without `from`");
}

#[tokio::test]
async fn ten_million_rows_are_refused_by_the_limit_for_output_rows() {
    let said =
        said_to(adding("Struct()"), emitting(output(10_000_000, vec![Column { length: 10_000_000, buffers: Buffers::Of(vec![vec![]]) }])))
            .await;
    assert_says!(said, "limit of 1000", "output rows per input row");
}

#[tokio::test]
async fn one_region_a_million_times_is_refused_by_the_limit_for_bytes() {
    let column = Column { length: 4, buffers: Buffers::Repeated(1_000_000, vec![0; 65_536]) };
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![column]))).await, "limit of 67108864", "bytes out of a call");
}

#[tokio::test]
async fn an_output_that_does_not_exist_is_refused() {
    assert_says!(said_to(adding("Int64"), emitting(Output { port: 1, ..output(4, vec![int64(&[0; 4])]) })).await, "output port 1 of 1");
}

#[tokio::test]
async fn a_missing_column_is_refused() {
    assert_says!(said_to(adding("Int64"), emitting(output(4, vec![]))).await, "0 columns", "adds 1");
}

#[tokio::test]
async fn an_absurd_event_time_is_refused() {
    let emitted = Output { event_times: i64s(&[0, 1, 2, i64::MAX]), ..output(4, vec![int64(&[0; 4])]) };
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "9223372036854775807", "years 1 to 9999");
}

#[tokio::test]
async fn event_times_that_were_not_planned_are_refused() {
    let emitted = Output { event_times: i64s(&[0; 4]), ..output(4, vec![]) };
    assert_says!(said_to(planned(), emitting(emitted)).await, "planned not to set them");
}

#[tokio::test]
async fn an_unknown_change_kind_is_refused() {
    let emitted = Output { changes: vec![0, 1, 2, 4], ..output(4, vec![int64(&[0; 4])]) };
    assert_says!(said_to(adding("Int64"), emitting(emitted)).await, "change kind 4");
}

#[tokio::test]
async fn a_rejected_row_that_does_not_exist_is_refused() {
    let turn = Turn { rejected: vec![contract::Rejected { row: 4, reason: "no".into() }], ..Turn::default() };
    assert_says!(said_to(planned(), turn).await, "rejected row 4 of 4");
}

#[tokio::test]
async fn output_from_a_rejected_row_is_refused() {
    let emitted = Output { from: u32s(&[0, 2]), ..output(2, vec![]) };
    let turn = Turn { rejected: vec![contract::Rejected { row: 2, reason: "no".into() }], ..emitting(emitted) };
    assert_says!(said_to(planned(), turn).await, "row 2 is rejected, but output port 0 has a row from it");
}

// ---- lies about state and timers ----

fn count(changed: u8, values: Column) -> Updates {
    Updates { values: vec![contract::ValueUpdate { state: 0, changed: vec![changed], values }], ..Updates::default() }
}

#[tokio::test]
async fn fewer_values_than_changed_keys_are_refused() {
    assert_says!(said_to(remembering(), updating(count(0b1011, int64(&[1, 2])))).await, "2 values of state `count` for 3 changed keys");
}

#[tokio::test]
async fn a_changed_bitmap_of_another_length_is_refused() {
    let mut updates = count(0, int64(&[]));
    updates.values[0].changed = vec![];
    assert_says!(said_to(remembering(), updating(updates)).await, "`changed` bitmap of 0 bytes for 4 bits");
}

#[tokio::test]
async fn updates_of_unknown_states_are_refused() {
    let mut updates = count(0, int64(&[]));
    updates.values[0].state = 9;
    assert_says!(said_to(remembering(), updating(updates)).await, "state 9 of 3");
}

#[tokio::test]
async fn a_map_updated_as_a_value_is_refused() {
    let mut updates = count(0, int64(&[]));
    updates.values[0].state = 1;
    assert_says!(said_to(remembering(), updating(updates)).await, "state `map` as Value");
}

#[tokio::test]
async fn two_updates_of_one_state_are_refused() {
    let mut updates = count(0, int64(&[]));
    updates.values.push(updates.values[0].clone());
    assert_says!(said_to(remembering(), updating(updates)).await, "two updates of value state 0");
}

#[tokio::test]
async fn map_and_list_and_timer_updates_of_keys_out_of_range_are_refused() {
    let map = contract::MapUpdate { state: 1, keys: u32s(&[4]), map_keys: utf8(1, &[0, 1], b"k"), values: int64(&[1]), deleted: vec![] };
    let updates = Updates { maps: vec![map], ..Updates::default() };
    assert_says!(said_to(remembering(), updating(updates)).await, "map update names key 4 of 4");

    let list = contract::ListUpdate { state: 2, cleared: vec![], keys: u32s(&[7]), values: int64(&[1]) };
    let updates = Updates { lists: vec![list], ..Updates::default() };
    assert_says!(said_to(remembering(), updating(updates)).await, "list update names key 7 of 4");

    let timer = contract::TimerUpdate { timer: 0, keys: u32s(&[u32::MAX]), at: i64s(&[1]), deleted: vec![] };
    let updates = Updates { timers: vec![timer], ..Updates::default() };
    assert_says!(said_to(remembering(), updating(updates)).await, "timer update names key 4294967295 of 4");
}

#[tokio::test]
async fn a_null_in_a_map_is_refused() {
    let null = Column { length: 1, buffers: Buffers::Of(vec![vec![0], vec![0; 8]]) };
    let map = contract::MapUpdate { state: 1, keys: u32s(&[0]), map_keys: utf8(1, &[0, 1], b"k"), values: null, deleted: vec![] };
    assert_says!(
        said_to(remembering(), updating(Updates { maps: vec![map], ..Updates::default() })).await,
        "null value in map state `map`"
    );
}

#[tokio::test]
async fn unknown_timers_and_absurd_timer_times_are_refused() {
    let timer = |timer: u32, at: i64| {
        let update = contract::TimerUpdate { timer, keys: u32s(&[0]), at: i64s(&[at]), deleted: vec![] };
        updating(Updates { timers: vec![update], ..Updates::default() })
    };
    assert_says!(said_to(remembering(), timer(1, 0)).await, "timer 1 of 1");
    assert_says!(said_to(remembering(), timer(0, i64::MIN)).await, "years 1 to 9999");
}

#[tokio::test]
async fn updates_in_a_call_without_keys_are_refused() {
    let mut plan = remembering();
    plan.inputs[0].keyed = true;
    let (mut instance, _) = opened(Puppet::new(plan, updating(count(0, int64(&[])))).component(), input(&[])).await;
    let failure = process(&mut instance, rows(ROWS)).await.expect_err("no keys were sent");
    assert_says!(failure.to_string(), "without keys");
}

#[tokio::test]
async fn updates_of_a_key_whose_rows_are_all_rejected_are_refused() {
    let turn = Turn { rejected: vec![contract::Rejected { row: 1, reason: "no".into() }], ..updating(count(0b10, int64(&[1]))) };
    assert_says!(said_to(remembering(), turn).await, "every row of key 1 is rejected");
}

// ---- bad behaviour ----

fn limit_of(failure: &Failure) -> Option<(Limit, u64, Call)> {
    match failure {
        Failure::Limit(LimitExceeded { site, limit, max }) => Some((*limit, *max, site.call)),
        _ => None,
    }
}

async fn process_with(act: Act) -> Failure {
    let puppet = Puppet { process: act, ..Puppet::silent() };
    let (mut instance, _) = opened(puppet.component(), input(&[])).await;
    process(&mut instance, rows(ROWS)).await.expect_err("misbehaves")
}

#[tokio::test]
async fn a_loop_for_ever_in_process_is_stopped_by_the_limit_for_cpu_time() {
    let failure = process_with(puppet::loop_for_ever()).await;
    assert_eq!(limit_of(&failure), Some((Limit::CpuPerCallMs, 50, Call::Process)), "{failure}");
}

/// The limit of a call is never raised, only lowered.
#[tokio::test]
async fn a_guest_whose_time_somebody_counts_is_stopped_earlier_and_never_later() {
    for (given_ms, stopped_after_ms) in [(20, 20), (60_000, 50)] {
        let puppet = Puppet { process: puppet::loop_for_ever(), ..Puppet::silent() };
        let (mut instance, _) = opened(puppet.component(), input(&[])).await;
        instance.limit_cpu(Duration::from_millis(given_ms));
        let failure = process(&mut instance, rows(ROWS)).await.expect_err("it loops");
        assert_eq!(limit_of(&failure), Some((Limit::CpuPerCallMs, stopped_after_ms, Call::Process)), "{failure}");
    }
}

#[tokio::test]
async fn a_loop_for_ever_in_any_other_call_is_stopped_too() {
    let mut instance = instance(Puppet { describe: puppet::loop_for_ever(), ..Puppet::silent() }.component()).await;
    assert!(instance.describe().await.expect_err("loops").to_string().contains("`describe` exceeded the limit of 50 for CPU time"));

    let mut instance = crate::instance(Puppet { plan: puppet::loop_for_ever(), ..Puppet::silent() }.component()).await;
    assert!(instance.plan(&serde_json::json!({}), &[input(&[])]).await.expect_err("loops").to_string().contains("`plan` exceeded"));

    let mut instance = crate::instance(Puppet { open: puppet::loop_for_ever(), ..Puppet::silent() }.component()).await;
    let plan = instance.plan(&serde_json::json!({}), &[input(&[])]).await.expect("plans").into();
    assert!(instance.open(&serde_json::json!({}), &[input(&[])], plan).await.expect_err("loops").to_string().contains("`open` exceeded"));

    let component = load(Puppet::silent().component_with(|extras| {
        extras.start = Some(vec![Instruction::Loop(wasm_encoder::BlockType::Empty), Instruction::Br(0), Instruction::End]);
    }));
    let error = component.await.expect("loads").operator(crate::context()).await.err().expect("loops");
    assert!(error.to_string().contains("`instantiate` exceeded"), "{error}");
}

#[tokio::test]
async fn a_call_that_loops_lets_other_tasks_run() {
    let puppet = Puppet { process: puppet::loop_for_ever(), ..Puppet::silent() };
    // On a busy machine the first pause may come late, so the limit is far behind it.
    let limits = Limits { cpu_per_call: Duration::from_secs(2), ..crate::limits() };
    let mut instance = opened_with(limits, puppet.component(), input(&[])).await;
    // One thread runs both tasks: the second runs while the guest loops, or only after it.
    let (sent, mut received) = tokio::sync::oneshot::channel();
    let looping = tokio::spawn(async move {
        let failure = process(&mut instance, rows(ROWS)).await.expect_err("loops");
        (limit_of(&failure).is_some(), received.try_recv().is_ok())
    });
    tokio::spawn(async move { sent.send(()) });
    assert_eq!(looping.await.expect("no panic"), (true, true));
}

#[tokio::test]
async fn growing_memory_without_end_is_stopped_by_the_limit_for_memory() {
    let failure = process_with(puppet::grow_for_ever()).await;
    assert_eq!(limit_of(&failure), Some((Limit::MemoryBytes, 16 << 20, Call::Process)), "{failure}");
}

#[tokio::test]
async fn deep_recursion_is_stopped_by_the_limit_for_the_stack() {
    let failure = process_with(puppet::recurse_for_ever()).await;
    assert_eq!(limit_of(&failure), Some((Limit::StackBytes, 512 << 10, Call::Process)), "{failure}");
}

#[tokio::test]
async fn a_trap_names_the_call_and_what_happened() {
    let failure = process_with(puppet::trap()).await;
    assert_says!(failure.to_string(), "`process` trapped", "unreachable");
    assert!(matches!(failure, Failure::Trap { backtrace, .. } if !backtrace.is_empty()));
}

#[tokio::test]
async fn a_trap_in_describe_is_an_error_of_the_guest() {
    let mut instance = instance(Puppet { describe: puppet::trap(), ..Puppet::silent() }.component()).await;
    let error = instance.describe().await.expect_err("traps");
    assert_says!(error.to_string(), "`describe` trapped");
    assert_eq!(error.kind(), millstream_model::ErrorKind::Guest);
}

/// As when a component is planned or inspected.
#[tokio::test]
async fn a_failure_outside_of_any_operator_names_the_component_alone() {
    let bytes = Puppet { describe: puppet::trap(), ..Puppet::silent() }.component();
    let component = load(bytes).await.expect("loads");
    let mut instance = component.operator(InstanceContext::unheard(None)).await.expect("starts");
    let error = instance.describe().await.expect_err("traps").to_string();
    assert!(error.contains("component `puppet.wasm`"), "{error}");
    assert!(!error.contains("operator `"), "{error}");
}

#[tokio::test]
async fn an_address_out_of_memory_as_answer_is_refused() {
    let failure = process_with(Act::Answer(0xffff_fff0)).await;
    assert!(matches!(failure, Failure::Refused { .. } | Failure::Trap { .. }), "{failure}");
}

/// An instance that is planned and opened for `input`, under these limits.
async fn opened_with(limits: Limits, bytes: std::sync::Arc<[u8]>, input: InputSchema) -> OperatorInstance {
    let component = runtime_with(limits).load(bytes, "puppet.wasm").await.expect("loads");
    let mut instance = component.operator(crate::context()).await.expect("starts");
    let plan = instance.plan(&serde_json::json!({}), std::slice::from_ref(&input)).await.expect("plans");
    instance.open(&serde_json::json!({}), &[input], std::sync::Arc::new(plan)).await.expect("opens");
    instance
}

#[tokio::test]
async fn more_bytes_than_a_call_may_take_are_a_limit_of_the_way_in() {
    let mut plan = planned();
    plan.inputs[0].reads = vec![field("n", "Int64")];
    let limits = Limits { bytes_into_call: 1000, ..crate::limits() };
    let schema = input(&[("n", DataType::Int64)]);
    let mut instance = opened_with(limits, Puppet::new(plan, Turn::default()).component(), schema).await;
    let mut large = rows(126);
    large.columns = vec![std::sync::Arc::new(Int64Array::from(vec![1; 126]))];
    let failure = process(&mut instance, large.clone()).await.expect_err("1008 bytes");
    assert_eq!(limit_of(&failure), Some((Limit::BytesIntoCall, 1000, Call::Process)));
    large.length = 125;
    large.columns = vec![large.columns[0].slice(0, 125)];
    process(&mut instance, large).await.expect("the guest never saw the first call, so the instance is good");
}

#[tokio::test]
async fn a_guest_that_asks_for_a_retry_keeps_its_instance() {
    let mut puppet = Puppet::silent();
    puppet.process = puppet.answer::<Result<Turn, contract::Failure>>(&Err(contract::Failure::Retry("busy".into())));
    let (mut instance, _) = opened(puppet.component(), input(&[])).await;
    for _ in 0..2 {
        let failure = process(&mut instance, rows(ROWS)).await.expect_err("asks for a retry");
        assert!(matches!(&failure, Failure::Retry(message) if message == "busy"), "{failure}");
    }
}

#[tokio::test]
async fn a_guest_that_gives_up_spends_its_instance() {
    let mut puppet = Puppet::silent();
    puppet.process = puppet.answer::<Result<Turn, contract::Failure>>(&Err(contract::Failure::Fatal("no".into())));
    let (mut instance, _) = opened(puppet.component(), input(&[])).await;
    assert!(matches!(process(&mut instance, rows(ROWS)).await, Err(Failure::Fatal(_))));
    assert!(matches!(process(&mut instance, rows(ROWS)).await, Err(Failure::Host { .. })));
}

#[tokio::test]
async fn a_call_that_is_dropped_midway_spends_the_instance() {
    let puppet = Puppet { process: puppet::loop_for_ever(), ..Puppet::silent() };
    // On a busy machine a call may use a long time before it first lets others run, and must not meet its limit there.
    let limits = Limits { cpu_per_call: Duration::from_secs(600), ..crate::limits() };
    let mut instance = opened_with(limits, puppet.component(), input(&[])).await;
    {
        let mut call = std::pin::pin!(process(&mut instance, rows(ROWS)));
        std::future::poll_fn(|context| {
            assert!(call.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert!(matches!(process(&mut instance, rows(ROWS)).await, Err(Failure::Host { .. })));
}

#[tokio::test]
async fn a_settings_schema_that_is_not_json_is_refused() {
    let mut puppet = Puppet::silent();
    puppet.describe = puppet.answer(&contract::Descriptor { settings_schema: "{".into(), ..descriptor() });
    let error = instance(puppet.component()).await.describe().await.expect_err("no JSON");
    assert!(matches!(error, Error::BadPlan { .. }), "{error}");
    assert_says!(error.to_string(), "not JSON");
}

#[tokio::test]
async fn the_time_of_a_call_is_known_afterwards() {
    let (mut instance, _) = opened(Puppet::silent().component(), input(&[])).await;
    process(&mut instance, rows(ROWS)).await.expect("an empty turn");
    let stats = instance.last_call();
    assert!(stats.busy > Duration::ZERO && stats.memory_bytes > 0);
}

/// Whoever reads a log or an error reads one line of this guest, and not megabytes of it.
#[tokio::test]
async fn words_of_a_guest_are_one_short_line() {
    for guest in [guests::gives_up_with_forged_lines(), guests::gives_up_at_length()] {
        let limits = Limits { memory_bytes: 64 << 20, cpu_per_call: Duration::from_secs(60), ..crate::limits() };
        let mut instance = opened_with(limits, guest, input(&[])).await;
        let failure = process(&mut instance, rows(1)).await.expect_err("it gives up").to_string();
        assert!(failure.starts_with("failed: ") && failure.len() < 16 << 10, "{} bytes: {:.100}", failure.len(), failure);
        assert!(!failure.contains(char::is_control), "{failure:?}");
    }
    let declined = instance(guests::declines_with_forged_lines()).await.plan(&serde_json::json!({}), &[input(&[])]).await;
    let declined = declined.expect_err("it says no").to_string();
    assert!(declined.contains("refused: no\\n2026") && !declined.contains(char::is_control), "{declined:?}");
}

#[tokio::test]
async fn names_that_deceive_who_reads_them_are_refused() {
    for guest in [guests::name_with_nul(), guests::name_with_override()] {
        let error = instance(guest).await.describe().await.expect_err("it is no name").to_string();
        assert!(error.contains("control how text is shown"), "{error}");
    }
}
