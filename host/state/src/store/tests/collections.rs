//! Ordered maps and lists.

use arrow_array::{UInt64Array, types::UInt64Type};

use super::*;

fn span(key: u32) -> Span {
    Span { key, after: None, before: None, newest_first: false, limit: u32::MAX }
}

fn put(fixture: &mut Fixture, key: i64, entries: &[(i64, Option<i64>)]) {
    let keys = fixture.resolve([key]);
    let update = MapUpdate {
        state: 0,
        keys: vec![0; entries.len()],
        map_keys: ints(entries.iter().map(|(map_key, _)| *map_key)),
        values: some_ints(&entries.iter().map(|(_, value)| Some(value.unwrap_or(0))).collect::<Vec<_>>()),
        deleted: BooleanBuffer::from_iter(entries.iter().map(|(_, value)| value.is_none())),
    };
    fixture.store.update_map(&keys, &update, NOW).expect("a good disk");
}

fn scan(fixture: &mut Fixture, key: i64, span: Span) -> Vec<(i64, i64)> {
    let keys = fixture.resolve([key]);
    let found = fixture.store.scan(0, &keys, &[span], 1 << 20, NOW).expect("a good disk");
    let (map_keys, values) = (found.map_keys.as_primitive::<Int64Type>().clone(), found.values.as_primitive::<Int64Type>().clone());
    map_keys.values().iter().copied().zip(values.values().iter().copied()).collect()
}

fn map_fixture(kind: Kind) -> Fixture {
    let mut fixture = open(kind, vec![map_state("m", DataType::Int64, DataType::Int64)], vec![]);
    put(&mut fixture, 1, &[(-5, Some(50)), (3, Some(30)), (9, Some(90))]);
    fixture.forget_keys();
    put(&mut fixture, 2, &[(3, Some(-3))]);
    put(&mut fixture, 1, &[(3, None), (4, Some(40)), (9, Some(91))]);
    fixture
}

#[test]
fn a_map_is_scanned_in_the_order_of_its_keys() {
    for kind in KINDS {
        let mut fixture = map_fixture(kind);
        assert_eq!(scan(&mut fixture, 1, span(0)), [(-5, 50), (4, 40), (9, 91)], "{kind:?}");
        assert_eq!(scan(&mut fixture, 1, Span { newest_first: true, ..span(0) }), [(9, 91), (4, 40), (-5, 50)], "{kind:?}");
        assert_eq!(scan(&mut fixture, 2, span(0)), [(3, -3)]);
        assert_eq!(scan(&mut fixture, 3, span(0)), []);
    }
}

#[test]
fn the_bounds_of_a_scan_are_outside_it() {
    for kind in KINDS {
        let mut fixture = map_fixture(kind);
        let between = |after: i64, before: i64| Span { after: Some(ints([after])), before: Some(ints([before])), ..span(0) };
        assert_eq!(scan(&mut fixture, 1, between(-5, 9)), [(4, 40)]);
        assert_eq!(scan(&mut fixture, 1, between(-6, 10)), [(-5, 50), (4, 40), (9, 91)]);
        assert_eq!(scan(&mut fixture, 1, between(9, 4)), []);
        assert_eq!(scan(&mut fixture, 1, Span { limit: 2, newest_first: true, ..span(0) }), [(9, 91), (4, 40)]);
    }
}

#[test]
fn a_scan_stops_at_its_bytes_and_says_so() {
    for kind in KINDS {
        let mut fixture = map_fixture(kind);
        let keys = fixture.resolve([1]);
        let found = fixture.store.scan(0, &keys, &[span(0), span(0)], 1, NOW).expect("a good disk");
        assert!(found.truncated);
        assert_eq!(found.of_span, [0]);
    }
}

#[test]
fn single_entries_of_a_map_are_read() {
    for kind in KINDS {
        let mut fixture = map_fixture(kind);
        let keys = fixture.resolve([2, 1]);
        let found = fixture.store.map_get(0, &keys, &[1, 1, 0, 0], &ints([9, 3, 3, 9]), NOW).expect("a good disk");
        assert_eq!(found.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(91), None, Some(-3), None], "{kind:?}");
    }
}

fn append(fixture: &mut Fixture, of: &[i64], cleared: &[bool], elements: &[(u32, &str)]) {
    let keys = fixture.resolve(of.iter().copied());
    let update = ListUpdate {
        state: 0,
        cleared: BooleanBuffer::from(cleared.to_vec()),
        keys: elements.iter().map(|(key, _)| *key).collect(),
        values: strings(&elements.iter().map(|(_, text)| *text).collect::<Vec<_>>()),
    };
    fixture.store.update_list(&keys, &update, NOW).expect("a good disk");
}

fn list(fixture: &mut Fixture, key: i64) -> Vec<String> {
    let keys = fixture.resolve([key]);
    let found = fixture.store.scan(0, &keys, &[span(0)], 1 << 20, NOW).expect("a good disk");
    assert!(found.map_keys.as_primitive::<UInt64Type>().values().is_sorted());
    found.values.as_string::<i32>().iter().map(|text| text.expect("elements are never null").into()).collect()
}

#[test]
fn a_list_keeps_the_order_of_appending() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![list_state("l", DataType::Utf8)], vec![]);
        append(&mut fixture, &[1, 2], &[], &[(0, "a"), (1, "x"), (0, "b")]);
        fixture.forget_keys();
        append(&mut fixture, &[2, 1], &[], &[(1, "c"), (0, "y")]);
        assert_eq!(list(&mut fixture, 1), ["a", "b", "c"], "{kind:?}");
        assert_eq!(list(&mut fixture, 2), ["x", "y"], "{kind:?}");
    }
}

#[test]
fn clearing_a_list_comes_before_appending() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![list_state("l", DataType::Utf8)], vec![]);
        append(&mut fixture, &[1, 2], &[], &[(0, "a"), (1, "x")]);
        fixture.forget_keys();
        append(&mut fixture, &[2, 1], &[false, true], &[(1, "b")]);
        assert_eq!(list(&mut fixture, 1), ["b"], "{kind:?}");
        assert_eq!(list(&mut fixture, 2), ["x"], "{kind:?}");
    }
}

#[test]
fn a_list_is_read_on_from_a_position() {
    let mut memory = open(Kind::Memory, vec![list_state("l", DataType::Utf8)], vec![]);
    append(&mut memory, &[1], &[], &[(0, "a"), (0, "b"), (0, "c")]);
    let keys = memory.resolve([1]);
    let first = memory.store.scan(0, &keys, &[Span { limit: 1, ..span(0) }], 1 << 20, NOW).expect("a good disk");
    let after: ArrayRef = Arc::new(UInt64Array::from(vec![first.map_keys.as_primitive::<UInt64Type>().value(0)]));
    let rest = memory.store.scan(0, &keys, &[Span { after: Some(after), ..span(0) }], 1 << 20, NOW).expect("a good disk");
    assert_eq!(&rest.values, &strings(&["b", "c"]));
}
