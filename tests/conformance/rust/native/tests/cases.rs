//! Every conformance case that the Rust guests pass, natively.

use std::{collections::BTreeSet, fs, path::Path};

use conformance_native::{run, run_aggregate, run_migration};

/// Makes one test per case, and the list of them.
macro_rules! cases {
    ($($test:ident: $case:literal, $runner:ident::<$guest:ty>;)*) => {
        $(
            #[test]
            fn $test() {
                $runner::<$guest>($case);
            }
        )*

        const CASES: &[&str] = &[$($case),*];
    };
}

cases! {
    filter: "filter", run::<conformance_filter::keep>;
    filter_passes_changes: "filter-changes", run::<conformance_filter::keep>;
    map: "map", run::<conformance_map::convert>;
    flat_map: "flat-map", run::<conformance_flat_map::split>;
    keyed_count: "keyed-count", run::<conformance_keyed_count::KeyedCount>;
    processing_timer: "processing-timer", run::<conformance_processing_timer::Silence>;
    map_state: "map-state", run::<conformance_map_state::apply>;
    list_state: "list-state", run::<conformance_list_state::apply>;
    co_process: "co-process", run::<conformance_co_process::Payments>;
    rejects: "rejects", run::<conformance_rejects::book>;
    requests: "requests", run::<conformance_requests::Requests>;
    changes: "changes", run::<conformance_changes::sum>;
    types: "types", run::<conformance_types::remember>;
    aggregate: "aggregate", run_aggregate::<conformance_aggregate::Percentile>;
    migration: "migration", run_migration::<conformance_migration::add>;
}

#[test]
fn every_case_is_run() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cases");
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), CASES.iter().map(|case| (*case).to_owned()).collect());
}
