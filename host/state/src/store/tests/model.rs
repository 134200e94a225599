//! Random histories against maps of the standard library: what a store answers depends neither on its backend, nor on what has left memory,
//! nor on the snapshots taken meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Float64Array, StructArray, types::Float64Type};
use proptest::prelude::*;

use super::{
    snapshots::{begin, restore, take},
    *,
};

#[derive(Clone, Debug)]
enum Step {
    /// Fixed-width values: none deletes.
    Values(Vec<(i64, Option<Value>)>),
    Texts(Vec<(i64, Option<String>)>),
    MapEntries(Vec<(i64, i64, Option<i64>)>),
    /// Key, cleared, new elements.
    Lists(Vec<(i64, bool, Vec<i64>)>),
    /// Timer, key, time, deleted.
    Timers(Vec<TimerStep>),
    /// Fires everything up to a time, in calls of a few timers.
    Fire(i64, usize),
    /// A barrier; the snapshot is read in slices of so many entries, with the next steps in between.
    Barrier(usize),
    /// Gives a snapshot up half-way.
    GiveUp(usize),
    Forget,
}

type Value = (i64, Option<u8>);
type TimerStep = (usize, i64, i64, bool);

#[derive(Clone, Debug, Default)]
struct Model {
    values: BTreeMap<i64, Value>,
    texts: BTreeMap<i64, String>,
    maps: BTreeMap<(i64, i64), i64>,
    lists: BTreeMap<i64, Vec<i64>>,
    /// Time, timer, key.
    timers: BTreeSet<(i64, usize, i64)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0_i64..40;
    let value = (any::<i64>(), proptest::option::of(any::<u8>()));
    let step = prop_oneof![
        4 => proptest::collection::vec((key(), proptest::option::weighted(0.7, value)), 0..20).prop_map(Step::Values),
        3 => proptest::collection::vec((key(), proptest::option::weighted(0.7, "[a-c]{0,40}")), 0..20).prop_map(Step::Texts),
        3 => proptest::collection::vec((key(), -3_i64..4, proptest::option::weighted(0.7, any::<i64>())), 0..20).prop_map(Step::MapEntries),
        3 => proptest::collection::vec((key(), proptest::bool::weighted(0.2), proptest::collection::vec(any::<i64>(), 0..4)), 0..8).prop_map(Step::Lists),
        3 => proptest::collection::vec((0_usize..2, key(), 0_i64..12, proptest::bool::weighted(0.3)), 0..40).prop_map(Step::Timers),
        2 => (0_i64..14, 1_usize..20).prop_map(|(up_to, limit)| Step::Fire(up_to, limit)),
        2 => (1_usize..40).prop_map(Step::Barrier),
        1 => (1_usize..40).prop_map(Step::GiveUp),
        2 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..40)
}

fn pair_type() -> DataType {
    struct_type(vec![Field::new("count", DataType::Int64, false), Field::new("note", DataType::Float64, true)])
}

fn pairs(values: &[Option<Value>]) -> ArrayRef {
    let DataType::Struct(fields) = pair_type() else { unreachable!("declared above") };
    let counts = ints(values.iter().map(|value| value.map_or(0, |(count, _)| count)));
    let notes: ArrayRef = Arc::new(Float64Array::from_iter(values.iter().map(|value| value.and_then(|(_, note)| note).map(f64::from))));
    let valid = values.iter().map(Option::is_some).collect::<Vec<_>>();
    Arc::new(StructArray::new(fields, vec![counts, notes], Some(valid.into())))
}

fn of_pairs(column: &ArrayRef) -> Vec<Option<Value>> {
    let column = column.as_struct();
    let (counts, notes) = (column.column(0).as_primitive::<Int64Type>(), column.column(1).as_primitive::<Float64Type>());
    let value = |row: usize| column.is_valid(row).then(|| (counts.value(row), notes.is_valid(row).then(|| notes.value(row) as u8)));
    (0..column.len()).map(value).collect()
}

fn new_fixture(kind: Kind) -> Fixture {
    let states = vec![
        value_state("pairs", pair_type()),
        value_state("texts", DataType::Utf8),
        map_state("map", DataType::Int64, DataType::Int64),
        list_state("list", DataType::Int64),
    ];
    open(kind, states, vec![event_timer("a"), event_timer("b")])
}

/// The last entry of each key, in the order of keys.
fn last<V: Clone>(entries: &[(i64, V)]) -> (Vec<i64>, Vec<V>) {
    entries.iter().cloned().collect::<BTreeMap<i64, V>>().into_iter().unzip()
}

/// Keys of a batch, and the key number of each row.
fn numbered(fixture: &mut Fixture, rows: Vec<i64>) -> (KeySet, Vec<u32>) {
    let keys = fixture.resolve(rows);
    let numbers = keys.of_row().map_or_else(|| (0..keys.len() as u32).collect(), |of_row| of_row.to_vec());
    (keys, numbers)
}

fn run(fixture: &mut Fixture, model: &mut Model, step: &Step) {
    match step {
        Step::Values(entries) => {
            let (batch, values) = last(entries);
            let keys = fixture.resolve(batch.iter().copied());
            let before = of_pairs(&fixture.load(0, &keys));
            assert_eq!(before, batch.iter().map(|key| model.values.get(key).copied()).collect::<Vec<_>>());
            fixture.store.update_values(0, &keys, &all(&keys), &pairs(&values), NOW).expect("a good disk");
            for (key, value) in batch.into_iter().zip(values) {
                match value {
                    Some(value) => drop(model.values.insert(key, value)),
                    None => drop(model.values.remove(&key)),
                }
            }
        }
        Step::Texts(entries) => {
            let (batch, texts) = last(entries);
            let keys = fixture.resolve(batch.iter().copied());
            let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
            fixture.store.update_values(1, &keys, &all(&keys), &column, NOW).expect("a good disk");
            for (key, text) in batch.into_iter().zip(texts) {
                match text {
                    Some(text) => drop(model.texts.insert(key, text)),
                    None => drop(model.texts.remove(&key)),
                }
            }
        }
        Step::MapEntries(entries) => {
            let (keys, numbers) = numbered(fixture, entries.iter().map(|(key, _, _)| *key).collect());
            let map_keys = ints(entries.iter().map(|(_, map_key, _)| *map_key));
            let values = ints(entries.iter().map(|(_, _, value)| value.unwrap_or(0)));
            let deleted = entries.iter().map(|(_, _, value)| value.is_none()).collect();
            fixture.store.update_map(&keys, &MapUpdate { state: 2, keys: numbers, map_keys, values, deleted }, NOW).expect("a good disk");
            for (key, map_key, value) in entries {
                match value {
                    Some(value) => drop(model.maps.insert((*key, *map_key), *value)),
                    None => drop(model.maps.remove(&(*key, *map_key))),
                }
            }
        }
        Step::Lists(entries) => {
            let (keys, numbers) = numbered(fixture, entries.iter().map(|(key, _, _)| *key).collect());
            let mut cleared = vec![false; keys.len()];
            numbers.iter().zip(entries).for_each(|(&number, (_, clear, _))| cleared[number as usize] |= clear);
            let elements: Vec<(u32, i64)> =
                numbers.iter().zip(entries).flat_map(|(&number, (_, _, new))| new.iter().map(move |&element| (number, element))).collect();
            let (of, values): (Vec<u32>, Vec<i64>) = elements.into_iter().unzip();
            let update = ListUpdate { state: 3, cleared: cleared.into(), keys: of, values: ints(values) };
            fixture.store.update_list(&keys, &update, NOW).expect("a good disk");
            for (key, _, _) in entries.iter().filter(|(_, clear, _)| *clear) {
                model.lists.remove(key);
            }
            for (key, _, new) in entries.iter().filter(|(_, _, new)| !new.is_empty()) {
                model.lists.entry(*key).or_default().extend(new);
            }
        }
        Step::Timers(entries) => {
            let (keys, numbers) = numbered(fixture, entries.iter().map(|(_, key, _, _)| *key).collect());
            for timer in 0..2 {
                let mine: Vec<(u32, &TimerStep)> = numbers.iter().copied().zip(entries).filter(|(_, entry)| entry.0 == timer).collect();
                let at = mine.iter().map(|(_, entry)| entry.2).collect();
                let deleted = mine.iter().map(|(_, entry)| entry.3).collect();
                let update = TimerUpdate { timer, keys: mine.iter().map(|(number, _)| *number).collect(), at, deleted };
                fixture.store.update_timers(&keys, &update).expect("a good update");
            }
            for (timer, key, time, deleted) in entries {
                if *deleted {
                    model.timers.remove(&(*time, *timer, *key));
                } else {
                    model.timers.insert((*time, *timer, *key));
                }
            }
        }
        Step::Fire(up_to, limit) => fire(fixture, model, *up_to, *limit),
        Step::Forget => fixture.forget_keys(),
        Step::Barrier(_) | Step::GiveUp(_) => {}
    }
}

fn fire(fixture: &mut Fixture, model: &mut Model, up_to: i64, limit: usize) {
    while let Some(due) = fixture.store.due(Clock::EventTime, up_to, limit).expect("a good disk") {
        let types = [DataType::Int64];
        let columns =
            millstream_model::key::decode_keys(&types, (0..due.len()).map(|number| due.keys.key_bytes(number))).expect("encoded above");
        let mut seen = BTreeSet::new();
        for number in 0..due.len() {
            let key = columns[0].as_primitive::<Int64Type>().value(number);
            let timer = (due.at[number], due.timer[number] as usize, key);
            assert!(seen.insert(key), "one timer per key and call");
            let earliest = model.timers.iter().filter(|other| other.2 == key).map(|other| other.0).min();
            assert_eq!(earliest, Some(timer.0), "the earliest first");
            assert!(model.timers.remove(&timer), "{timer:?} was set");
        }
        fixture.store.remove_due(&due);
    }
    assert!(model.timers.iter().all(|timer| timer.0 > up_to), "all that was due has fired");
    assert!(fixture.store.next_timer(Clock::EventTime) <= model.timers.first().map(|timer| timer.0) || model.timers.is_empty());
}

/// Every answer of the store, compared.
fn compare(fixture: &mut Fixture, model: &Model) {
    let keys = fixture.resolve(0..40);
    assert_eq!(of_pairs(&fixture.load(0, &keys)), (0..40).map(|key| model.values.get(&key).copied()).collect::<Vec<_>>());
    let texts = fixture.load(1, &keys);
    let texts: Vec<Option<String>> = texts.as_string::<i32>().iter().map(|text| text.map(String::from)).collect();
    assert_eq!(texts, (0..40).map(|key| model.texts.get(&key).cloned()).collect::<Vec<_>>());
    let spans: Vec<Span> = (0..40).map(|key| Span { key, after: None, before: None, newest_first: false, limit: u32::MAX }).collect();
    let found = fixture.store.scan(2, &keys, &spans, usize::MAX, NOW).expect("a good disk");
    let (map_keys, values) = (found.map_keys.as_primitive::<Int64Type>().clone(), found.values.as_primitive::<Int64Type>().clone());
    let entries: Vec<((i64, i64), i64)> =
        (0..values.len()).map(|row| ((i64::from(found.of_span[row]), map_keys.value(row)), values.value(row))).collect();
    assert_eq!(entries, model.maps.clone().into_iter().collect::<Vec<_>>());
    let found = fixture.store.scan(3, &keys, &spans, usize::MAX, NOW).expect("a good disk");
    let values = found.values.as_primitive::<Int64Type>();
    let mut lists: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    (0..values.len()).for_each(|row| lists.entry(i64::from(found.of_span[row])).or_default().push(values.value(row)));
    assert_eq!(lists, model.lists);
}

fn replay(kind: Kind, steps: &[Step]) {
    let (mut fixture, mut model) = (new_fixture(kind), Model::default());
    let mut rest = steps.iter();
    while let Some(step) = rest.next() {
        match step {
            Step::Barrier(limit) => {
                let mut expected = model.clone();
                let part = take(&mut fixture, *limit, |fixture| {
                    if let Some(step) = rest.next() {
                        run(fixture, &mut model, step);
                    }
                });
                let mut restored = restore(KINDS[limit % 3], 0..KEY_GROUPS, &[part]);
                compare(&mut restored, &expected);
                fire(&mut restored, &mut expected, i64::MAX, 7);
            }
            Step::GiveUp(limit) => {
                begin(&mut fixture);
                fixture.store.continue_snapshot(*limit).expect("a snapshot is under way");
                if let Some(step) = rest.next() {
                    run(&mut fixture, &mut model, step);
                }
                fixture.store.abandon_snapshot();
            }
            step => run(&mut fixture, &mut model, step),
        }
        compare(&mut fixture, &model);
    }
    fire(&mut fixture, &mut model, i64::MAX, 7);
    assert_eq!(fixture.store.next_timer(Clock::EventTime), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_in_memory_behaves_as_its_model(steps in steps()) {
        replay(Kind::Memory, &steps);
    }

    #[test]
    fn a_store_on_rocksdb_behaves_as_its_model(steps in steps()) {
        replay(Kind::RocksDb, &steps);
    }

    #[test]
    fn a_store_that_keeps_nothing_in_memory_behaves_as_its_model(steps in steps()) {
        replay(Kind::TinyRocksDb, &steps);
    }
}

/// Found by the histories above: a bucket whose timers cancel each other must not hide the next.
#[test]
fn an_emptied_bucket_does_not_hide_the_next() {
    let timers = vec![(0, 17, 7, false), (1, 17, 1, false), (1, 0, 0, false)];
    KINDS.iter().for_each(|&kind| replay(kind, &[Step::Timers(timers.clone()), Step::Fire(7, 1)]));
}
