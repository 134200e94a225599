//! Every conformance case, with real components in the real host: those of Rust, and the first of Python and JavaScript.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Ended, millstream};

fn conformance() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// Where `scripts/setup` puts the makers of Python and JavaScript components.
fn tools() -> String {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    format!("{}:{}", cache.join("venv/bin").display(), cache.join("node/node_modules/.bin").display())
}

/// Builds a guest and runs these cases with it.
fn passes(language: &str, guest: &str, cases: &[&str]) {
    let project = conformance().join(language).join(guest);
    let out = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", tools(), std::env::var("PATH").unwrap_or_default());
    let mut build = millstream(&project);
    let built = build.args(["build", "--offline", "--out"]).arg(out.path()).env("PATH", path).output().unwrap();
    Ended::of(built).with_code(0);
    let component = fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    let mut test = millstream(&project);
    test.args(["test", "--component"]).arg(component).arg("--cases");
    test.args(cases.iter().map(|case| conformance().join("cases").join(format!("{case}.json"))));
    let tested = Ended::of(test.output().unwrap()).with_code(0);
    assert!(tested.stdout.ends_with(&format!("{} passed, 0 failed\n", cases.len())), "{}", tested.stdout);
}

macro_rules! guests {
    ($($test:ident: $language:literal $guest:literal $cases:expr;)*) => {
        $(
            #[test]
            fn $test() {
                passes($language, $guest, &$cases);
            }
        )*
    };
}

guests! {
    rust_aggregate: "rust" "aggregate" ["aggregate"];
    rust_changes: "rust" "changes" ["changes"];
    rust_co_process: "rust" "co-process" ["co-process"];
    rust_filter: "rust" "filter" ["filter", "filter-changes"];
    rust_flat_map: "rust" "flat-map" ["flat-map"];
    rust_keyed_count: "rust" "keyed-count" ["keyed-count"];
    rust_list_state: "rust" "list-state" ["list-state"];
    rust_map: "rust" "map" ["map"];
    rust_map_state: "rust" "map-state" ["map-state"];
    rust_migration: "rust" "migration" ["migration"];
    rust_processing_timer: "rust" "processing-timer" ["processing-timer"];
    rust_rejects: "rust" "rejects" ["rejects"];
    rust_requests: "rust" "requests" ["requests"];
    rust_types: "rust" "types" ["types"];
    python_filter: "python" "filter" ["filter"];
    python_keyed_count: "python" "keyed-count" ["keyed-count"];
    javascript_filter: "javascript" "filter" ["filter"];
    javascript_keyed_count: "javascript" "keyed-count" ["keyed-count"];
}
