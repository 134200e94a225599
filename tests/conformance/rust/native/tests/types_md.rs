//! The harness reads the types of `wit/types.md` as they are printed.

use std::{fs, path::Path};

use millstream::testing::DataType;

#[test]
fn the_harness_reads_every_type() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../wit/types.md")).unwrap();
    let printed: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.trim_end_matches("` |").split("| `").nth(2)).collect();
    assert!(printed.len() > 40, "the table was found");
    for text in printed {
        assert!(DataType::parse(text).is_ok(), "{text}");
    }
}
