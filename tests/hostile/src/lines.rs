//! The list of hostile things, line by line.
//!
//! [`LIST`] is the list as it was asked for. Every [`Line`] is one piece of its text, and the pieces cover it: `unclaimed` says what nobody plays.

/// The list.
pub const LIST: &str = "\
Upload: not Wasm, core module, truncated at each KiB, 32 MiB of zeros, 1 M types, nesting depth 100, compile bombs (one 7 MB function, huge br_table, \
50,000 locals), 10,000 imports/exports, compressed body bomb, unknown or forbidden import, right name with wrong types, duplicate names, traps or \
loops in start/`describe`/`plan`, names with separators, NUL, RTL override, 200 parallel uploads. \
CPU: `loop {}` in every export, huge memory.fill, just under the deadline for ever, deep recursion. \
Memory: grow to the limit, grow in single pages for ever, table growth, leak per call, handle floods. \
Boundary: realloc returning 0, unaligned, out of range, overlapping; result lists that alias one region a million times; traps inside realloc and \
post-return; invalid UTF-8; lengths and offsets that overflow; `from` and slots out of range, twice, foreign; wrong column count, type, null mask. \
Host API: 10^7 host calls, 1 GiB of log with control characters and forged newlines, 10^6 new keys per second, 10^6 timers at one instant and at \
±i64 extremes, self-rearming timers, absurd event times, a million outputs per row, undeclared ports, slow guest under back-pressure. \
Lifecycle: trap on one record for ever, trap in `migrate`, panic in a destructor, different answers on replay, job deleted during a checkpoint, \
200 crash-looping jobs, state written by v1 read by a hostile v2. \
API: authorisation matrix tenant × endpoint × verb × id kind generated from the router, slow-loris 2,000 sockets, 10× rate, giant headers and JSON \
depth, path traversal, SSRF vectors (≥ 60: octal, hex, v6-mapped, rebinding, redirects), 20 planted secrets never found in logs, API answers, metrics, \
snapshots.";

macro_rules! lines {
    ($($group:literal { $($line:ident $words:literal,)* })*) => {
        /// A line of the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Line { $($($line,)*)* }

        impl Line {
            /// All of them, in the order of the list.
            pub const ALL: &[Self] = &[$($(Self::$line,)*)*];

            /// Its words in the list.
            pub fn words(self) -> &'static str {
                match self { $($(Self::$line => $words,)*)* }
            }

            /// What it is about.
            pub fn group(self) -> &'static str {
                match self { $($(Self::$line => $group,)*)* }
            }
        }

        const GROUPS: &[&str] = &[$($group,)*];
    };
}

lines! {
    "Upload" {
        NotWasm "not Wasm",
        CoreModule "core module",
        Truncated "truncated at each KiB",
        Zeros "32 MiB of zeros",
        ManyTypes "1 M types",
        Nesting "nesting depth 100",
        LargeFunction "one 7 MB function",
        HugeBrTable "huge br_table",
        ManyLocals "50,000 locals",
        ManyNames "10,000 imports/exports",
        CompressedBody "compressed body bomb",
        UngrantedImport "unknown or forbidden import",
        WrongTypes "right name with wrong types",
        DuplicateNames "duplicate names",
        Early "traps or loops in start/`describe`/`plan`",
        Names "names with separators, NUL, RTL override",
        ParallelUploads "200 parallel uploads",
    }
    "CPU" {
        Loops "`loop {}` in every export",
        MemoryFill "huge memory.fill",
        JustUnder "just under the deadline for ever",
        Recursion "deep recursion",
    }
    "Memory" {
        GrowToLimit "grow to the limit",
        GrowByPages "grow in single pages for ever",
        TableGrowth "table growth",
        Leak "leak per call",
        Handles "handle floods",
    }
    "Boundary" {
        Realloc "realloc returning 0, unaligned, out of range, overlapping",
        Aliases "result lists that alias one region a million times",
        TrapsAround "traps inside realloc and post-return",
        InvalidUtf8 "invalid UTF-8",
        Overflows "lengths and offsets that overflow",
        Rows "`from` and slots out of range, twice, foreign",
        Columns "wrong column count, type, null mask",
    }
    "Host API" {
        HostCalls "10^7 host calls",
        Log "1 GiB of log with control characters and forged newlines",
        NewKeys "10^6 new keys per second",
        ManyTimers "10^6 timers at one instant",
        ExtremeTimers "at ±i64 extremes",
        Rearming "self-rearming timers",
        EventTimes "absurd event times",
        ManyOutputs "a million outputs per row",
        Ports "undeclared ports",
        Slow "slow guest under back-pressure",
    }
    "Lifecycle" {
        OneRecord "trap on one record for ever",
        TrapInMigrate "trap in `migrate`",
        Destructor "panic in a destructor",
        Replay "different answers on replay",
        DeletedDuringCheckpoint "job deleted during a checkpoint",
        CrashLoops "200 crash-looping jobs",
        HostileSuccessor "state written by v1 read by a hostile v2",
    }
    "API" {
        Authorisation "authorisation matrix tenant × endpoint × verb × id kind generated from the router",
        SlowLoris "slow-loris 2,000 sockets",
        Rate "10× rate",
        Giants "giant headers and JSON depth",
        PathTraversal "path traversal",
        Ssrf "SSRF vectors (≥ 60: octal, hex, v6-mapped, rebinding, redirects)",
        Secrets "20 planted secrets never found in logs, API answers, metrics, snapshots",
    }
}

/// What stands in the list and belongs to no line; empty, but for how lines are joined.
pub fn unclaimed() -> String {
    let mut rest = LIST.to_owned();
    for line in Line::ALL {
        let at = rest.find(line.words()).unwrap_or_else(|| panic!("{line:?} is not in the list: {}", line.words()));
        rest.replace_range(at..at + line.words().len(), "");
    }
    for group in GROUPS {
        rest = rest.replacen(&format!("{group}:"), "", 1);
    }
    let rest = rest.replacen("compile bombs", "", 1).replacen(" and ", "", 1);
    rest.chars().filter(|character| !",;. ()".contains(*character)).collect()
}
