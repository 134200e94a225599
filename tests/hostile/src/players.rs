//! Who plays each line of the list, and what shall become of it.

use crate::{
    guests::{self, Bytes},
    lines::Line,
    uploads,
};

/// Who plays a line, or a part of it.
pub enum Player {
    /// A component that is pushed, and what is said of it.
    Push(fn() -> Bytes, Pushed),
    /// A job of a stranger, and how it ends.
    Job(Job, End),
    /// Something that the battery does itself.
    Own(Own),
    /// A test that plays it thoroughly elsewhere: where it lies below the repository, and its name.
    Elsewhere(&'static str, &'static str),
}

/// What becomes of a component that is pushed.
#[derive(Clone, Copy, Debug)]
pub enum Pushed {
    /// It is refused, in these words.
    Refused(&'static str),
    /// It is taken, or refused because compiling it needs more than it may have. Nothing else.
    WithinLimits,
}

/// A job of a stranger.
#[derive(Clone, Copy)]
pub struct Job {
    pub guest: Guest,
    /// Settings of its source, which numbers rows; a number is also the event time of its row.
    pub numbers: &'static str,
    /// Settings of the operator beside its component.
    pub operator: &'static str,
}

/// What the operator of a job is.
#[derive(Clone, Copy)]
pub enum Guest {
    /// A component made by hand.
    Puppet(fn() -> Bytes),
    /// `tests/jobs/operators/hostile`, with these settings.
    Rust(&'static str),
    /// An aggregate made by hand, in a window: `tumbling: 1h`.
    Aggregate(fn() -> Bytes, &'static str),
}

impl Job {
    /// The job file; its component is `bad:v1`.
    pub fn file(&self, name: &str) -> String {
        let Self { numbers, operator, .. } = self;
        let does = match self.guest {
            Guest::Puppet(_) => "component: bad:v1".to_owned(),
            Guest::Rust(settings) => format!("component: {{ name: bad:v1, settings: {settings} }}"),
            Guest::Aggregate(_, window) => {
                format!("window: {{ {window}, aggregates: {{ bad: {{ component: bad:v1, input: [value] }} }} }}")
            }
        };
        let operator = if operator.is_empty() { String::new() } else { format!("{operator}, ") };
        format!(
            "job: {name}
parallelism: 1
sources:
  numbers:
    sequence: {{ {numbers} }}
    event-time: {{ column: value }}
operators:
  op: {{ input: numbers, {operator}{does} }}
sinks:
  out: {{ input: op, blackhole: {{}} }}
checkpoints: {{ interval: 500ms }}
"
        )
    }
}

/// How a job ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Its submission is refused, in these words.
    Declined(&'static str),
    /// It fails, in these words.
    Fails(&'static str),
    /// It comes to its end.
    Finishes,
    /// It runs on, is stopped at once when asked, and deleted.
    RunsOn,
    /// It runs on, and what is measured of its operator `op` says that this was counted.
    Counts(&'static str),
}

/// What the battery does itself.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// A good component, cut at each KiB.
    PushTruncated,
    /// A body that says to be compressed.
    PushCompressed,
    /// Names of components, tags and jobs that are none.
    PushUnderBadNames,
    /// Two hundred at once.
    PushInParallel,
    /// A job is deleted while it takes a checkpoint.
    DeleteDuringCheckpoint,
    /// Two hundred jobs that fail and are resumed.
    CrashLoops,
    /// A version of a running job that keeps its state another way, and does not come back from making it so.
    Succeed,
    /// Ten times the requests that a tenant may make.
    Flood,
    /// Paths that lead elsewhere.
    TraversePaths,
    /// Twenty secrets, of which nobody hears but the component.
    PlantSecrets,
}

const fn puppet(guest: fn() -> Bytes) -> Job {
    Job { guest: Guest::Puppet(guest), numbers: "to: 0", operator: "" }
}

const fn keyed(guest: fn() -> Bytes) -> Job {
    Job { operator: "key-by: [value]", ..puppet(guest) }
}

const fn rust(settings: &'static str, numbers: &'static str) -> Job {
    Job { guest: Guest::Rust(settings), numbers, operator: "key-by: [value]" }
}

const fn aggregate(guest: fn() -> Bytes, window: &'static str) -> Job {
    Job { guest: Guest::Aggregate(guest, window), numbers: "to: 1", operator: "key-by: []" }
}

const fn fails(guest: fn() -> Bytes, says: &'static str) -> Player {
    Player::Job(puppet(guest), End::Fails(says))
}

const fn fails_keyed(guest: fn() -> Bytes, says: &'static str) -> Player {
    Player::Job(keyed(guest), End::Fails(says))
}

const fn declined(guest: fn() -> Bytes, says: &'static str) -> Player {
    Player::Job(puppet(guest), End::Declined(says))
}

const fn refused(bytes: fn() -> Bytes, says: &'static str) -> Player {
    Player::Push(bytes, Pushed::Refused(says))
}

const CPU: &str = "for CPU time per call in ms";
const MEMORY: &str = "for memory in bytes";

/// Who plays a line; never nobody.
pub fn players(line: Line) -> Vec<Player> {
    use Player::{Elsewhere, Own, Push};
    match line {
        Line::NotWasm => vec![refused(uploads::no_wasm, "it does not begin as WebAssembly does")],
        Line::CoreModule => vec![refused(uploads::core_module, "core module")],
        Line::Truncated => vec![Own(self::Own::PushTruncated)],
        Line::Zeros => vec![refused(uploads::zeros, "it does not begin as WebAssembly does")],
        Line::ManyTypes => vec![Push(uploads::many_types, Pushed::WithinLimits), refused(uploads::too_many_types, "types count")],
        Line::Nesting => vec![
            Push(uploads::nested_components, Pushed::WithinLimits),
            refused(uploads::nested_types, "type nesting is too deep"),
            Push(uploads::nested_blocks, Pushed::WithinLimits),
        ],
        Line::LargeFunction => vec![Push(uploads::large_function, Pushed::WithinLimits), refused(uploads::too_large_function, "size")],
        Line::HugeBrTable => vec![refused(uploads::huge_br_table, "`br_table` has 7000000 targets")],
        Line::ManyLocals => vec![Push(uploads::many_locals, Pushed::WithinLimits), refused(uploads::too_many_locals, "locals")],
        Line::ManyNames => {
            vec![refused(uploads::many_imports, "`acme:many/i0@1.0.0`"), refused(uploads::many_exports, "exceeds limit of 1000")]
        }
        Line::CompressedBody => vec![Own(self::Own::PushCompressed)],
        Line::UngrantedImport => vec![
            refused(uploads::forbidden_import, "`wasi:sockets/tcp@0.2.0`, which operators are not granted: operators have no network"),
            refused(
                uploads::forbidden_http,
                "`wasi:http/outgoing-handler@0.2.0`, which operators are not granted: operators have no network",
            ),
            refused(uploads::unknown_import, "`acme:secret/api@1.0.0`, which operators are not granted: it is not part of the contract"),
            refused(uploads::other_version_import, "another version of the contract"),
        ],
        Line::WrongTypes => vec![refused(uploads::wrong_export, "does not fit"), refused(uploads::wrong_import, "does not fit")],
        Line::DuplicateNames => vec![
            refused(uploads::exports_of_one_name, "does not fit"),
            refused(uploads::operator_twice, "conflicts with previous"),
            refused(guests::ports_of_one_name, "two ports of the name `out`"),
            declined(guests::columns_of_one_name, "two columns of the name `added`"),
            Player::Job(keyed(guests::states_of_one_name), End::Declined("a state without a name of its own")),
        ],
        Line::Early => vec![
            refused(guests::traps_in_start, "`instantiate` trapped"),
            refused(guests::loops_in_start, CPU),
            refused(guests::traps_in_describe, "`describe` trapped"),
            refused(guests::loops_in_describe, CPU),
            declined(guests::traps_in_plan, "`plan` trapped"),
            declined(guests::loops_in_plan, CPU),
            declined(guests::declines_with_forged_lines, "no\\n2026-01-01T00:00:00Z ERROR forged by the guest\\u{7}"),
        ],
        Line::Names => vec![
            Own(self::Own::PushUnderBadNames),
            refused(uploads::export_with_separators, "valid extern name"),
            refused(uploads::export_with_override, "valid extern name"),
            refused(uploads::export_with_nul, "valid extern name"),
            refused(guests::name_with_nul, "control how text is shown"),
            refused(guests::name_with_override, "control how text is shown"),
            refused(guests::port_with_separator, "port name"),
            declined(guests::column_with_override, "control how text is shown"),
            Player::Job(keyed(guests::state_with_nul), End::Declined("control how text is shown")),
        ],
        Line::ParallelUploads => vec![Own(self::Own::PushInParallel)],

        Line::Loops => vec![
            fails(guests::loops_in_open, CPU),
            fails(guests::loops_in_process, CPU),
            fails_keyed(guests::loops_in_timers, CPU),
            refused(guests::loops_in_post_return, CPU),
            Player::Job(aggregate(guests::loops_in_accumulate, "tumbling: 1h"), End::Fails(CPU)),
            Player::Job(
                Job { numbers: "to: 7200000, step: 1800000", ..aggregate(guests::loops_in_merge, "sliding: { size: 1h, slide: 30m }") },
                End::Fails(CPU),
            ),
            Player::Job(aggregate(guests::loops_in_finish, "tumbling: 1h"), End::Fails(CPU)),
        ],
        Line::MemoryFill => vec![fails(guests::fills_memory, CPU)],
        Line::JustUnder => vec![Player::Job(Job { numbers: "rate: 100", ..puppet(counts_for_half_a_second) }, End::RunsOn)],
        Line::Recursion => vec![fails(guests::recurses, "for stack in bytes (recursion is too deep)")],

        Line::GrowToLimit => vec![Player::Job(Job { numbers: "rate: 100", ..puppet(guests::grows_to_the_limit) }, End::RunsOn)],
        Line::GrowByPages => vec![fails(guests::grows_by_pages, MEMORY)],
        Line::TableGrowth => vec![fails(guests::grows_a_table, "for table entries")],
        // A new instance begins again with what it was made with, and the job goes on.
        Line::Leak => vec![
            Player::Job(Job { numbers: "rate: 500", ..puppet(guests::leaks) }, End::Counts("traps")),
            Player::Job(rust("{ what: hoard }", "rate: 500"), End::Counts("traps")),
        ],
        Line::Handles => vec![fails(guests::floods_handles, "handle limit")],

        Line::Realloc => vec![
            // What is written over what harms nobody but itself.
            Player::Job(Job { numbers: "rate: 100", ..puppet(guests::allocates_at_zero) }, End::RunsOn),
            Player::Job(Job { numbers: "rate: 100", ..puppet(guests::allocates_overlapping) }, End::RunsOn),
            declined(guests::allocates_unaligned, "not aligned"),
            declined(guests::allocates_out_of_range, "realloc return: beyond end of memory"),
        ],
        Line::Aliases => vec![fails(guests::aliases, "for bytes out of a call")],
        Line::TrapsAround => {
            vec![declined(guests::traps_in_realloc, "`plan` trapped"), refused(guests::traps_in_post_return, "`describe` trapped")]
        }
        Line::InvalidUtf8 => vec![fails(guests::text_that_is_none, "not UTF-8 at byte 1"), fails(guests::reason_that_is_no_text, "utf-8")],
        Line::Overflows => vec![
            fails(guests::length_past_memory, "out of bounds"),
            fails(guests::rows_past_counting, "for output rows per input row"),
            fails(guests::offsets_past_data, "offsets end at 2147483647, but there are 3 bytes of data"),
            fails(guests::offsets_that_decrease, "offsets decrease"),
            fails(guests::list_offsets_past_items, "8 bytes for 2147483647 values"),
        ],
        Line::Rows => vec![
            fails(guests::from_out_of_range, "`from` names row 1 of 1"),
            fails(guests::from_too_often, "for output rows per input row"),
            fails(guests::from_rejected, "row 0 is rejected, but output port 0 has a row from it"),
            fails_keyed(guests::updates_twice, "two updates of value state 0"),
            fails_keyed(guests::updates_foreign_key, "map update names key 1 of 1"),
            fails_keyed(guests::appends_to_foreign_key, "list update names key 4294967295 of 1"),
            fails_keyed(guests::updates_foreign_state, "state 9 of 3"),
        ],
        Line::Columns => vec![
            fails(guests::column_missing, "0 columns"),
            fails(guests::column_too_many, "2 columns"),
            fails(guests::column_of_another_type, "buffers too many"),
            fails(guests::decimal_beyond_its_precision, "Decimal128(5, 2)"),
            fails(guests::nulls_where_none_may_be, "has nulls"),
            fails(guests::mask_too_short, "bitmap of 1 bytes for 9 bits"),
            declined(guests::column_of_a_type_that_is_none, "`Int65` is not a type"),
        ],

        Line::HostCalls => vec![
            // As many as it takes: on a quick machine 10^7 calls fit into the time of one call.
            Player::Job(rust("{ what: call the host, times: 1000000000 }", "to: 9"), End::Fails(CPU)),
            fails_keyed(guests::scans_for_ever, CPU),
            fails(guests::counts_what_is_not_defined, "there is no metric 0"),
            Player::Job(rust("{ what: large map, times: 200000 }", "to: 0"), End::Fails(MEMORY)),
            Player::Job(rust("{ what: large value }", "to: 0"), End::Fails("value")),
        ],
        Line::Log => vec![
            Player::Job(rust("{ what: say much, times: 64 }", "to: 9"), End::Finishes),
            fails(guests::logs_for_ever, CPU),
            fails(guests::gives_up_with_forged_lines, "no\\n2026-01-01T00:00:00Z ERROR forged by the guest\\u{7}"),
            fails(guests::gives_up_at_length, "failed: xxxx"),
            Player::Job(rust("{ what: refuse to open }", "to: 0"), End::Declined("no\\n2026-01-01T00:00:00Z ERROR forged")),
        ],
        Line::NewKeys => vec![Player::Job(rust("{ what: answer }", "to: 999999"), End::Finishes)],
        Line::ManyTimers => vec![
            Player::Job(rust("{ what: set timers at one instant }", "to: 999999"), End::Finishes),
            Player::Job(rust("{ what: set many timers, times: 20000 }", "to: 0"), End::Finishes),
        ],
        Line::ExtremeTimers => vec![
            fails_keyed(guests::timer_at_the_beginning, "years 1 to 9999"),
            fails_keyed(guests::timer_at_the_end, "years 1 to 9999"),
            fails_keyed(guests::timer_that_is_none, "timer 1 of 1"),
        ],
        Line::Rearming => vec![
            Player::Job(Job { numbers: "to: 0", ..keyed(guests::rearms_at_once) }, End::Finishes),
            Player::Job(Job { numbers: "rate: 1000", ..keyed(guests::rearms_at_once) }, End::RunsOn),
            Player::Job(rust("{ what: set timer again and again }", "rate: 1000"), End::RunsOn),
            Player::Job(
                Job { operator: "key-by: [value], order: event-time", ..rust("{ what: set timer again and again }", "rate: 1000") },
                End::RunsOn,
            ),
            Player::Job(rust("{ what: wake at once and again }", "rate: 1000"), End::RunsOn),
        ],
        Line::EventTimes => {
            vec![fails(guests::event_time_past_all, "years 1 to 9999"), fails(guests::event_time_before_all, "years 1 to 9999")]
        }
        Line::ManyOutputs => vec![
            fails(guests::a_million_rows, "for output rows per input row"),
            Player::Job(rust("{ what: emit much, times: 1000000 }", "to: 0"), End::Fails("for output rows per input row")),
        ],
        Line::Ports => {
            vec![fails(guests::port_that_is_none, "output port 1 of 1"), fails(guests::port_past_counting, "output port 4294967295 of 1")]
        }
        Line::Slow => vec![Player::Job(rust("{ what: be slow, times: 1000000 }", ""), End::RunsOn)],

        Line::OneRecord => vec![
            Player::Job(rust("{ what: trap at 7 }", "to: 99"), End::Fails("the row is {\"value\":7}")),
            Player::Job(
                Job { operator: "key-by: [value], rejected: drop", ..rust("{ what: trap at 7 }", "rate: 500") },
                End::Counts("traps"),
            ),
        ],
        Line::TrapInMigrate => {
            vec![Elsewhere("host/cli/tests/jobs/savepoints.rs", "a_migration_that_traps_or_lies_is_refused_and_the_old_version_goes_on")]
        }
        Line::Destructor => vec![
            Player::Job(rust("{ what: panic in a destructor }", "to: 0"), End::Fails("trapped")),
            Player::Job(rust("{ what: panic in open }", "to: 0"), End::Declined("trapped")),
        ],
        Line::Replay => vec![Player::Job(rust("{ what: answer differently }", "rate: 500"), End::Counts("traps"))],
        Line::DeletedDuringCheckpoint => vec![Own(self::Own::DeleteDuringCheckpoint)],
        Line::CrashLoops => vec![Own(self::Own::CrashLoops)],
        Line::HostileSuccessor => vec![
            Own(self::Own::Succeed),
            Elsewhere("host/state/src/store/tests/migration.rs", "a_migration_that_fails_or_lies_is_refused_and_the_snapshot_stays"),
        ],

        Line::Authorisation => vec![
            Elsewhere("host/cli/tests/service/walls.rs", "the_table_has_a_row_for_every_route_and_no_other"),
            Elsewhere("host/cli/tests/service/walls.rs", "what_belongs_to_another_tenant_is_not_there"),
            Elsewhere("host/cli/tests/service/walls.rs", "what_a_body_names_is_looked_for_in_the_own_tenant_alone"),
            Elsewhere("host/cli/tests/service/walls.rs", "no_token_a_revoked_one_and_too_small_a_scope_get_nowhere"),
        ],
        Line::SlowLoris => vec![Elsewhere("host/cli/tests/service/hostile.rs", "two_thousand_slow_sockets_keep_nobody_waiting")],
        Line::Rate => vec![Own(self::Own::Flood)],
        Line::Giants => vec![
            Elsewhere("host/cli/tests/service/hostile.rs", "heads_that_are_too_large_are_refused_and_the_next_request_is_answered"),
            Elsewhere("host/cli/tests/service/hostile.rs", "requests_that_are_not_understood_say_why"),
        ],
        Line::PathTraversal => {
            vec![Own(self::Own::TraversePaths), Elsewhere("host/cli/tests/service/egress.rs", "a_stranger_names_nothing_of_the_machine")]
        }
        Line::Ssrf => vec![
            Elsewhere("host/egress/src/policy/tests.rs", "what_is_inside_is_reached_by_no_way_to_write_it"),
            Elsewhere("host/egress/src/policy/tests.rs", "a_name_that_is_bound_again_is_checked_each_time_and_never_between"),
            Elsewhere("host/cli/tests/service/egress.rs", "jobs_of_a_hosted_service_reach_what_is_listed_and_nothing_else_inside"),
        ],
        Line::Secrets => vec![Own(self::Own::PlantSecrets)],
    }
}

/// Half of what a call may use on the machines that we have, so that no noise makes it too much.
fn counts_for_half_a_second() -> Bytes {
    guests::counts_for_long(200_000_000)
}
