//! Operators that misbehave, as components. Their answers are for calls of one row.

use std::sync::Arc;

use wasm_encoder::{BlockType, HeapType, Instruction, MemArg, ValType};

use crate::{
    contract::{
        Buffers, Column, Failure, ListUpdate, MapUpdate, Output, OutputPlan, Planned, Rejected, Signature, State, Timer, TimerUpdate, Turn,
        Updates, ValueUpdate, field, i64s, int64, u32s, utf8,
    },
    puppet::{Act, AggregatePuppet, Extras, Import, Puppet, descriptor, give_back, loop_for_ever, planned, recurse_for_ever, trap},
};

pub type Bytes = Arc<[u8]>;

// ---- plans ----

/// A plan that adds one column of this type and keeps nothing.
pub fn adding(data_type: &str) -> Planned {
    let output = OutputPlan { keeps: None, adds: vec![field("added", data_type)], sets_event_times: true, changes: true };
    Planned { outputs: vec![output], ..planned() }
}

/// A plan with a keyed value state of `Int64`, a map, a list and a timer.
pub fn remembering() -> Planned {
    let state = |name: &str, kind: u8, map_key_type: Option<&str>| State {
        name: name.into(),
        kind,
        scope: 0,
        map_key_type: map_key_type.map(Into::into),
        value_type: "Int64".into(),
        version: 1,
        ttl: None,
    };
    let mut plan = planned();
    plan.inputs[0].keyed = true;
    plan.states = vec![state("count", 0, None), state("map", 1, Some("Utf8")), state("list", 2, None)];
    plan.timers = vec![Timer { name: "alarm".into(), clock: 0 }];
    plan
}

/// Reads the column `value`, so that whatever allocates is called with every row.
fn reading() -> Planned {
    let mut plan = planned();
    plan.inputs[0].reads = vec![field("value", "Int64")];
    plan
}

// ---- answers ----

fn output(length: u32, columns: Vec<Column>) -> Output {
    Output { port: 0, from: vec![], length, event_times: vec![], changes: vec![], columns }
}

fn emitting(output: Output) -> Turn {
    Turn { outputs: vec![output], ..Turn::default() }
}

fn updating(updates: Updates) -> Turn {
    Turn { updates, ..Turn::default() }
}

fn answers(plan: Planned, turn: Turn) -> Bytes {
    Puppet::new(plan, turn).component()
}

fn column(length: u32, buffers: Buffers) -> Column {
    Column { length, buffers }
}

// ---- what runs in a call ----

/// Does this again and again.
fn forever(body: &[Instruction<'static>]) -> Act {
    let ends = [Instruction::Br(0), Instruction::End, Instruction::Unreachable];
    Act::Run([&[Instruction::Loop(BlockType::Empty)], body, &ends].concat())
}

/// Does this until it gives -1; then it traps, as an allocator would.
fn until_refused(body: &[Instruction<'static>]) -> Act {
    let again = [Instruction::I32Const(-1), Instruction::I32Ne, Instruction::BrIf(0), Instruction::End, Instruction::Unreachable];
    Act::Run([&[Instruction::Loop(BlockType::Empty)], body, &again].concat())
}

/// Does this in each call, then answers as a silent operator does.
fn first(body: &[Instruction<'static>], puppet: &Puppet) -> Act {
    let Act::Answer(answer) = puppet.process else { unreachable!("a silent puppet answers") };
    Act::Run([body, &[Instruction::I32Const(answer.cast_signed())]].concat())
}

fn processing(process: Act) -> Bytes {
    Puppet { process, ..Puppet::silent() }.component()
}

/// Grows by so many pages; what that gives is on the stack.
fn grow(pages: i32) -> [Instruction<'static>; 2] {
    [Instruction::I32Const(pages), Instruction::MemoryGrow(0)]
}

// ---- loops and traps, by where ----

pub fn loops_in_describe() -> Bytes {
    Puppet { describe: loop_for_ever(), ..Puppet::silent() }.component()
}

pub fn loops_in_plan() -> Bytes {
    Puppet { plan: loop_for_ever(), ..Puppet::silent() }.component()
}

pub fn loops_in_start() -> Bytes {
    let start = vec![Instruction::Loop(BlockType::Empty), Instruction::Br(0), Instruction::End];
    Puppet::silent().component_with(|extras| extras.start = Some(start))
}

pub fn loops_in_open() -> Bytes {
    Puppet { open: loop_for_ever(), ..Puppet::silent() }.component()
}

pub fn loops_in_process() -> Bytes {
    processing(loop_for_ever())
}

/// Sets a timer with every row, and does not come back when it fires.
pub fn loops_in_timers() -> Bytes {
    Puppet { on_timers: loop_for_ever(), ..Puppet::new(remembering(), setting_timer(0, &[0], &[0])) }.component()
}

pub fn traps_in_describe() -> Bytes {
    Puppet { describe: trap(), ..Puppet::silent() }.component()
}

pub fn traps_in_plan() -> Bytes {
    Puppet { plan: trap(), ..Puppet::silent() }.component()
}

pub fn traps_in_process() -> Bytes {
    processing(trap())
}

pub fn traps_in_start() -> Bytes {
    Puppet::silent().component_with(|extras| extras.start = Some(vec![Instruction::Unreachable]))
}

fn signature() -> Signature {
    Signature {
        reads: vec![field("value", "Int64")],
        accumulator_type: "Int64".into(),
        version: 1,
        output: field("sum", "Int64"),
        merges: true,
        hints: vec![],
    }
}

/// An aggregate that does not come back from `accumulate`.
pub fn loops_in_accumulate() -> Bytes {
    AggregatePuppet { accumulate: loop_for_ever(), ..AggregatePuppet::new(signature()) }.component()
}

/// An aggregate that does not come back from `merge`. Its rows are five, each of a group of its own.
pub fn loops_in_merge() -> Bytes {
    let mut puppet = AggregatePuppet::new(signature());
    puppet.accumulate = puppet.answer::<Result<Column, String>>(&Ok(int64(&[7; 5])));
    let Act::Answer(answer) = puppet.answer::<Result<Column, String>>(&Ok(int64(&[]))) else { unreachable!("answers lie at an address") };
    puppet.finish = give_back(answer, 0);
    AggregatePuppet { merge: loop_for_ever(), ..puppet }.component()
}

/// An aggregate that does not come back from `finish`.
pub fn loops_in_finish() -> Bytes {
    let mut puppet = AggregatePuppet::new(signature());
    puppet.accumulate = puppet.answer::<Result<Column, String>>(&Ok(int64(&[7])));
    AggregatePuppet { finish: loop_for_ever(), ..puppet }.component()
}

/// Counts nothing, and keeps a state of the second version that it does not come back from making.
pub fn loops_in_migrate() -> Bytes {
    let mut plan = remembering();
    plan.states[0].version = 2;
    plan.states[0].value_type = "Utf8".into();
    Puppet { migrate: Some(loop_for_ever()), ..Puppet::new(plan, Turn::default()) }.component()
}

/// Counts to 7 for every key, and keeps a state of the first version.
pub fn counts_to_seven() -> Bytes {
    answers(remembering(), updating(count(1, int64(&[7]))))
}

// ---- CPU ----

/// Fills 100 MiB again and again: the host cannot interrupt it within one fill.
pub fn fills_memory() -> Bytes {
    let mut body = grow(1_620).to_vec();
    body.push(Instruction::Drop);
    body.push(Instruction::Loop(BlockType::Empty));
    body.extend([Instruction::I32Const(1 << 20), Instruction::I32Const(7), Instruction::I32Const(100 << 20), Instruction::MemoryFill(0)]);
    body.extend([Instruction::Br(0), Instruction::End, Instruction::Unreachable]);
    processing(Act::Run(body))
}

/// Counts to a number in every call, and answers.
pub fn counts_for_long(rounds: i32) -> Bytes {
    let puppet = Puppet::silent();
    let word = MemArg { offset: 512, align: 2, memory_index: 0 };
    let body = [
        Instruction::I32Const(0),
        Instruction::I32Const(rounds),
        Instruction::I32Store(word),
        Instruction::Loop(BlockType::Empty),
        Instruction::I32Const(0),
        Instruction::I32Const(0),
        Instruction::I32Load(word),
        Instruction::I32Const(1),
        Instruction::I32Sub,
        Instruction::I32Store(word),
        Instruction::I32Const(0),
        Instruction::I32Load(word),
        Instruction::BrIf(0),
        Instruction::End,
    ];
    let process = first(&body, &puppet);
    Puppet { process, ..puppet }.component()
}

pub fn recurses() -> Bytes {
    processing(recurse_for_ever())
}

// ---- memory ----

/// Has 120 MiB from its first call on, and touches each page in every call.
pub fn grows_to_the_limit() -> Bytes {
    let puppet = Puppet::silent();
    let mut body = grow(1_900).to_vec();
    body.push(Instruction::Drop);
    body.extend([Instruction::I32Const(1 << 20), Instruction::I32Const(7), Instruction::I32Const(110 << 20), Instruction::MemoryFill(0)]);
    let process = first(&body, &puppet);
    Puppet { process, ..puppet }.component()
}

pub fn grows_by_pages() -> Bytes {
    processing(until_refused(&grow(1)))
}

pub fn grows_a_table() -> Bytes {
    let body = [Instruction::RefNull(HeapType::FUNC), Instruction::I32Const(1), Instruction::TableGrow(0)];
    Puppet { process: until_refused(&body), ..Puppet::silent() }.component_with(|extras| extras.has_table = true)
}

/// One mebibyte more with every call, given back never; it answers as long as it can.
pub fn leaks() -> Bytes {
    let puppet = Puppet::silent();
    let mut body = vec![Instruction::Block(BlockType::Empty)];
    body.extend(grow(16));
    body.extend([Instruction::I32Const(-1), Instruction::I32Ne, Instruction::BrIf(0), Instruction::Unreachable, Instruction::End]);
    let process = first(&body, &puppet);
    Puppet { process, ..puppet }.component()
}

const WASI: [&str; 2] = [
    "package wasi:io@0.2.0; interface poll { resource pollable; } interface streams { resource output-stream; }",
    "package wasi:cli@0.2.0; interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }",
];

/// Takes handles of standard output and gives none back.
pub fn floods_handles() -> Bytes {
    let import =
        Import { interface: "wasi:cli/stdout@0.2.0", function: "get-stdout", parameters: &[], results: &[ValType::I32], wit: &WASI };
    let process = forever(&[Instruction::Call(0), Instruction::Drop]);
    Puppet { process, ..Puppet::silent() }.component_with(|extras| extras.import = Some(import))
}

// ---- boundary ----

fn allocating(realloc: &[Instruction<'static>]) -> Bytes {
    let realloc = Some(realloc.to_vec());
    Puppet::new(reading(), Turn::default()).component_with(|extras| *extras = Extras { realloc, ..Extras::default() })
}

/// Has everything at the beginning of its memory: what comes second lies over what came first.
pub fn allocates_at_zero() -> Bytes {
    allocating(&[Instruction::I32Const(0)])
}

pub fn allocates_unaligned() -> Bytes {
    allocating(&[Instruction::I32Const(1_025)])
}

pub fn allocates_out_of_range() -> Bytes {
    allocating(&[Instruction::I32Const(-16)])
}

/// Has everything at one place, which is good enough for each alone.
pub fn allocates_overlapping() -> Bytes {
    allocating(&[Instruction::I32Const(512)])
}

pub fn traps_in_realloc() -> Bytes {
    allocating(&[Instruction::Unreachable])
}

pub fn traps_in_post_return() -> Bytes {
    Puppet::silent().component_with(|extras| extras.post_return = Some(vec![Instruction::Unreachable]))
}

pub fn loops_in_post_return() -> Bytes {
    let body = vec![Instruction::Loop(BlockType::Empty), Instruction::Br(0), Instruction::End];
    Puppet::silent().component_with(|extras| extras.post_return = Some(body))
}

/// A million buffers, all of them the same 64 KiB.
pub fn aliases() -> Bytes {
    answers(adding("Int64"), emitting(output(1, vec![column(1, Buffers::Repeated(1_000_000, vec![0; 65_536]))])))
}

pub fn text_that_is_none() -> Bytes {
    answers(adding("Utf8"), emitting(output(1, vec![utf8(1, &[0, 3], b"a\xff\xfe")])))
}

/// Its reason for rejecting a row is no text.
pub fn reason_that_is_no_text() -> Bytes {
    let mut puppet = Puppet::silent();
    let turn = Turn { rejected: vec![Rejected { row: 0, reason: "#####".into() }], ..Turn::default() };
    puppet.process = puppet.answer::<Result<Turn, Failure>>(&Ok(turn));
    let at = puppet.memory.bytes.windows(5).rposition(|window| window == b"#####").expect("it was put there");
    puppet.memory.bytes[at..at + 5].copy_from_slice(b"\xff\xfe\xfd\xfc\xfb");
    puppet.component()
}

pub fn length_past_memory() -> Bytes {
    answers(adding("Int64"), emitting(output(1, vec![column(1, Buffers::At(0xffff_fff0, 64))])))
}

pub fn rows_past_counting() -> Bytes {
    answers(adding("Struct()"), emitting(output(u32::MAX, vec![column(u32::MAX, Buffers::Of(vec![vec![]]))])))
}

pub fn offsets_past_data() -> Bytes {
    answers(adding("Utf8"), emitting(output(1, vec![utf8(1, &[0, 0x7fff_ffff], b"abc")])))
}

pub fn offsets_that_decrease() -> Bytes {
    answers(adding("Utf8"), emitting(output(1, vec![utf8(1, &[0, u32::MAX], b"abc")])))
}

pub fn list_offsets_past_items() -> Bytes {
    let buffers = Buffers::Of(vec![vec![], u32s(&[0, 0x7fff_ffff]), vec![], vec![0; 8]]);
    answers(adding("List(Int64)"), emitting(output(1, vec![column(1, buffers)])))
}

pub fn from_out_of_range() -> Bytes {
    answers(adding("Int64"), emitting(Output { from: u32s(&[1]), ..output(1, vec![int64(&[1])]) }))
}

/// Every row comes from the only row, more often than a row may have outputs.
pub fn from_too_often() -> Bytes {
    let rows = 1_001;
    answers(adding("Int64"), emitting(Output { from: u32s(&vec![0; rows]), ..output(1_001, vec![int64(&vec![1; rows])]) }))
}

/// A row from one that it rejects itself.
pub fn from_rejected() -> Bytes {
    let emitted = Output { from: u32s(&[0]), ..output(1, vec![int64(&[1])]) };
    answers(adding("Int64"), Turn { rejected: vec![Rejected { row: 0, reason: "no".into() }], ..emitting(emitted) })
}

fn count(changed: u8, values: Column) -> Updates {
    Updates { values: vec![ValueUpdate { state: 0, changed: vec![changed], values }], ..Updates::default() }
}

/// One state twice in an answer.
pub fn updates_twice() -> Bytes {
    let mut updates = count(1, int64(&[1]));
    updates.values.push(updates.values[0].clone());
    answers(remembering(), updating(updates))
}

/// A key that is not in the call.
pub fn updates_foreign_key() -> Bytes {
    let map = MapUpdate { state: 1, keys: u32s(&[1]), map_keys: utf8(1, &[0, 1], b"k"), values: int64(&[1]), deleted: vec![] };
    answers(remembering(), updating(Updates { maps: vec![map], ..Updates::default() }))
}

/// A list of a key that is not in the call by far.
pub fn appends_to_foreign_key() -> Bytes {
    let list = ListUpdate { state: 2, cleared: vec![], keys: u32s(&[u32::MAX]), values: int64(&[1]) };
    answers(remembering(), updating(Updates { lists: vec![list], ..Updates::default() }))
}

/// A state that it has not declared.
pub fn updates_foreign_state() -> Bytes {
    let mut updates = count(1, int64(&[1]));
    updates.values[0].state = 9;
    answers(remembering(), updating(updates))
}

pub fn column_missing() -> Bytes {
    answers(adding("Int64"), emitting(output(1, vec![])))
}

pub fn column_too_many() -> Bytes {
    answers(adding("Int64"), emitting(output(1, vec![int64(&[1]), int64(&[1])])))
}

/// Text where a number belongs: a buffer too many.
pub fn column_of_another_type() -> Bytes {
    answers(adding("Int64"), emitting(output(1, vec![utf8(1, &[0, 8], b"eight by")])))
}

/// A column of which each part is good, and that does not fit its type.
pub fn decimal_beyond_its_precision() -> Bytes {
    answers(adding("Decimal128(5, 2)"), emitting(output(1, vec![column(1, Buffers::Of(vec![vec![], vec![0x7f; 16]]))])))
}

pub fn nulls_where_none_may_be() -> Bytes {
    let mut plan = adding("Int64");
    plan.outputs[0].adds[0].nullable = false;
    answers(plan, emitting(output(1, vec![column(1, Buffers::Of(vec![vec![0], vec![0; 8]]))])))
}

/// Says that there are 9 rows, and has a bit for 8.
pub fn mask_too_short() -> Bytes {
    let buffers = Buffers::Of(vec![vec![0xff], vec![0; 72]]);
    answers(adding("Int64"), emitting(Output { from: u32s(&[0; 9]), ..output(9, vec![column(9, buffers)]) }))
}

pub fn column_of_a_type_that_is_none() -> Bytes {
    answers(adding("Int65"), Turn::default())
}

// ---- host API ----

fn setting_timer(timer: u32, keys: &[u32], at: &[i64]) -> Turn {
    updating(Updates { timers: vec![TimerUpdate { timer, keys: u32s(keys), at: i64s(at), deleted: vec![] }], ..Updates::default() })
}

pub fn timer_at_the_beginning() -> Bytes {
    answers(remembering(), setting_timer(0, &[0], &[i64::MIN]))
}

pub fn timer_at_the_end() -> Bytes {
    answers(remembering(), setting_timer(0, &[0], &[i64::MAX]))
}

pub fn timer_that_is_none() -> Bytes {
    answers(remembering(), setting_timer(1, &[0], &[0]))
}

/// Sets its timer again whenever it fires, for the same time.
pub fn rearms_at_once() -> Bytes {
    answers(remembering(), setting_timer(0, &[0], &[0]))
}

pub fn event_time_past_all() -> Bytes {
    answers(adding("Int64"), emitting(Output { event_times: i64s(&[i64::MAX]), ..output(1, vec![int64(&[1])]) }))
}

pub fn event_time_before_all() -> Bytes {
    answers(adding("Int64"), emitting(Output { event_times: i64s(&[i64::MIN]), ..output(1, vec![int64(&[1])]) }))
}

pub fn a_million_rows() -> Bytes {
    let rows = 1_000_000;
    answers(
        adding("Struct()"),
        emitting(Output { from: u32s(&vec![0; rows as usize]), ..output(rows, vec![column(rows, Buffers::Of(vec![vec![]]))]) }),
    )
}

pub fn port_that_is_none() -> Bytes {
    answers(planned(), emitting(Output { port: 1, ..output(1, vec![]) }))
}

pub fn port_past_counting() -> Bytes {
    answers(planned(), emitting(Output { port: u32::MAX, ..output(1, vec![]) }))
}

const MILLSTREAM: [&str; 0] = [];

/// Counts with a metric that it has not defined, for ever; the host says no at the first.
pub fn counts_what_is_not_defined() -> Bytes {
    let import = Import {
        interface: "millstream:operator/metrics@0.1.0",
        function: "add",
        parameters: &[ValType::I32, ValType::F64],
        results: &[],
        wit: &MILLSTREAM,
    };
    let process = forever(&[Instruction::I32Const(0), Instruction::F64Const(1.0.into()), Instruction::Call(0)]);
    Puppet { process, ..Puppet::silent() }.component_with(|extras| extras.import = Some(import))
}

/// Asks for as many spans of a map at once as it may, again and again: zeros are spans of the first key without bounds.
pub fn scans_for_ever() -> Bytes {
    let import = Import {
        interface: "millstream:operator/collections@0.1.0",
        function: "scan",
        parameters: &[ValType::I32; 5],
        results: &[],
        wit: &MILLSTREAM,
    };
    let mut body = grow(600).to_vec();
    body.push(Instruction::Drop);
    body.push(Instruction::Loop(BlockType::Empty));
    // State 1 is the map; what is found is told at an address that nothing else uses.
    body.extend([1, 4 << 20, 1 << 16, 1 << 10, 512].map(Instruction::I32Const));
    body.extend([Instruction::Call(0), Instruction::Br(0), Instruction::End, Instruction::Unreachable]);
    let puppet = Puppet { process: Act::Run(body), ..Puppet::new(remembering(), Turn::default()) };
    puppet.component_with(|extras| extras.import = Some(import))
}

/// Says 16 MiB of control characters, again and again.
pub fn logs_for_ever() -> Bytes {
    let import = Import {
        interface: "millstream:operator/log@0.1.0",
        function: "emit",
        parameters: &[ValType::I32; 3],
        results: &[],
        wit: &MILLSTREAM,
    };
    let mut body = grow(300).to_vec();
    body.push(Instruction::Drop);
    body.extend([Instruction::I32Const(1 << 20), Instruction::I32Const(10), Instruction::I32Const(16 << 20), Instruction::MemoryFill(0)]);
    body.push(Instruction::Loop(BlockType::Empty));
    body.extend([Instruction::I32Const(2), Instruction::I32Const(1 << 20), Instruction::I32Const(16 << 20), Instruction::Call(0)]);
    body.extend([Instruction::Br(0), Instruction::End, Instruction::Unreachable]);
    Puppet { process: Act::Run(body), ..Puppet::silent() }.component_with(|extras| extras.import = Some(import))
}

// ---- words and names ----

/// A message of the guest that would be two lines, the second of them another's, and a bell.
pub const FORGED: &str = "no\n2026-01-01T00:00:00Z ERROR forged by the guest\u{7}";

/// Gives up with a message that forges a line of the log.
pub fn gives_up_with_forged_lines() -> Bytes {
    let mut puppet = Puppet::silent();
    puppet.process = puppet.answer::<Result<Turn, Failure>>(&Err(Failure::Fatal(FORGED.into())));
    puppet.component()
}

/// Gives up with a message of 32 MiB.
pub fn gives_up_at_length() -> Bytes {
    let mut puppet = Puppet::silent();
    puppet.process = puppet.answer::<Result<Turn, Failure>>(&Err(Failure::Fatal("#####".into())));
    // The message is as long as memory, which is made as long.
    let at = puppet.memory.bytes.windows(5).rposition(|window| window == b"#####").expect("it was put there");
    let list: Vec<u8> = [u32::try_from(at).expect("within memory"), 5].iter().flat_map(|word| word.to_le_bytes()).collect();
    let list = puppet.memory.bytes.windows(8).rposition(|window| window == list).expect("it points there");
    puppet.memory.bytes[list + 4..list + 8].copy_from_slice(&(32_u32 << 20).to_le_bytes());
    let Act::Answer(answer) = puppet.process else { unreachable!("it was an answer") };
    let mut body = grow(700).to_vec();
    body.push(Instruction::Drop);
    body.extend([at as i32, 0x78, 32 << 20].map(Instruction::I32Const));
    body.push(Instruction::MemoryFill(0));
    body.push(Instruction::I32Const(answer.cast_signed()));
    puppet.process = Act::Run(body);
    puppet.component()
}

/// Says no to being planned with a message that forges a line.
pub fn declines_with_forged_lines() -> Bytes {
    let mut puppet = Puppet::silent();
    puppet.plan = puppet.answer::<Result<Planned, String>>(&Err(FORGED.into()));
    puppet.component()
}

fn describing(name: &str, output: &[&str]) -> Bytes {
    let mut puppet = Puppet::silent();
    let outputs = output.iter().map(|&name| name.to_owned()).collect();
    puppet.describe = puppet.answer(&crate::contract::Descriptor { name: name.into(), outputs, ..descriptor() });
    puppet.component()
}

pub fn name_with_nul() -> Bytes {
    describing("a\0b", &["out"])
}

pub fn name_with_override() -> Bytes {
    describing("invoice\u{202e}fdp.exe", &["out"])
}

pub fn port_with_separator() -> Bytes {
    describing("puppet", &["../../out"])
}

pub fn ports_of_one_name() -> Bytes {
    describing("puppet", &["out", "out"])
}

pub fn columns_of_one_name() -> Bytes {
    let mut plan = adding("Int64");
    plan.outputs[0].adds.push(field("added", "Utf8"));
    answers(plan, Turn::default())
}

pub fn column_with_override() -> Bytes {
    let mut plan = adding("Int64");
    plan.outputs[0].adds[0].name = "total\u{202e}tnuoma".into();
    answers(plan, Turn::default())
}

pub fn states_of_one_name() -> Bytes {
    let mut plan = remembering();
    plan.states[1].name = plan.states[0].name.clone();
    answers(plan, Turn::default())
}

pub fn state_with_nul() -> Bytes {
    let mut plan = remembering();
    plan.states[0].name = "a\0b".into();
    answers(plan, Turn::default())
}
