use serde_json::json;

use super::document::{Document, Side};

fn document(text: &str) -> Document {
    Document::parse("job.yaml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn values_are_those_of_json() {
    let document = document("a: 1\nb: [x, '2', 2.5, true, ~]\nc: { d: off }\ne:\n  - f: |\n      two\n      lines\n");
    assert_eq!(document.value, json!({ "a": 1, "b": ["x", "2", 2.5, true, null], "c": { "d": "off" }, "e": [{ "f": "two\nlines\n" }] }));
}

#[test]
fn every_part_knows_where_it_is() {
    let document = document("a: 1\nb:\n  - x\n  - c.d: { e: 2 }\n");
    assert_eq!(document.position("/b/1/c.d/e", Side::Key), (4, 12));
    assert_eq!(document.position("/b/1/c.d/e", Side::Value), (4, 15));
    assert_eq!(document.position("/b/0", Side::Value), (3, 5));
    assert_eq!(document.position("/b/1/c.d/missing/deeper", Side::Value), (4, 5));
}

#[test]
fn dotted_paths_find_keys_with_dots() {
    let document = document("b:\n  - x\n  - c.d: { e: 2 }\n");
    assert_eq!(document.resolve("/b", "1.c.d.e"), "/b/1/c.d/e");
    assert_eq!(document.resolve("", "b[1].c.d"), "/b/1/c.d");
    assert_eq!(document.resolve("", "b.9.z"), "/b/9/z");
}
