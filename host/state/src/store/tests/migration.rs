//! Values that no rule can read, and the operator's own migration of them.

use arrow_array::types::Int32Type;
use millstream_model::{
    ErrorKind,
    state::{Ttl, TtlRefresh},
};

use super::{
    snapshots::{restore_as, take},
    *,
};
use crate::{Migrate, OldValues, SnapshotPart};

type Answer = Result<ArrayRef, Box<dyn std::error::Error + Send + Sync>>;

/// A migration, and what it was asked.
struct Asked<F>(F, Vec<(String, u32, DataType, usize)>);

impl<F: Fn(&ArrayRef) -> Answer> Migrate for Asked<F> {
    fn migrate(&mut self, old: OldValues<'_>) -> Answer {
        assert_eq!(old.values.data_type(), old.data_type);
        self.1.push((old.state.into(), old.version, old.data_type.clone(), old.values.len()));
        (self.0)(old.values)
    }
}

/// What version 1 had as a text, version 2 has as a number.
fn parse(values: &ArrayRef) -> Answer {
    let numbers = values.as_string::<i32>().iter().map(|text| text.map(str::parse::<i64>).transpose());
    Ok(ints(numbers.collect::<Result<Vec<_>, _>>()?.into_iter().map(|number| number.expect("never null"))))
}

const KEYS: i64 = 6_000;
const TTL: Option<Ttl> = Some(Ttl { duration_ms: 1_000_000, clock: Clock::EventTime, refresh: TtlRefresh::OnWrite });

fn declared(version: u32, value_type: &DataType) -> Vec<StateDescriptor> {
    let value_type = || value_type.clone();
    let states = vec![
        StateDescriptor { ttl: TTL, ..value_state("v", value_type()) },
        map_state("m", DataType::Int64, value_type()),
        list_state("l", value_type()),
    ];
    let mut states: Vec<_> = states.into_iter().map(|state| StateDescriptor { version, ..state }).collect();
    states.push(value_state("same", DataType::Int64));
    states
}

/// A value, a map entry and two elements per key, all of them the key as a text.
fn texts(kind: Kind) -> Fixture {
    let mut fixture = open(kind, declared(1, &DataType::Utf8), vec![event_timer("t")]);
    for start in (0..KEYS).step_by(1_000) {
        let batch: Vec<i64> = (start..start + 1_000).collect();
        let keys = fixture.resolve(batch.iter().copied());
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(batch.iter().map(i64::to_string)));
        fixture.store.update_values(0, &keys, &all(&keys), &texts, at(start)).expect("a good disk");
        let (numbers, deleted) = ((0..1_000).collect::<Vec<u32>>(), BooleanBuffer::new_unset(1_000));
        let map =
            MapUpdate { state: 1, keys: numbers.clone(), map_keys: ints(batch.iter().map(|key| -key)), values: texts.clone(), deleted };
        fixture.store.update_map(&keys, &map, NOW).expect("a good disk");
        for _ in 0..2 {
            let list = ListUpdate { state: 2, cleared: BooleanBuffer::new_unset(0), keys: numbers.clone(), values: texts.clone() };
            fixture.store.update_list(&keys, &list, NOW).expect("a good disk");
        }
        fixture.put_ints(3, &batch.iter().map(|&key| (key, Some(key))).collect::<Vec<_>>());
    }
    fixture
}

fn restore_migrating(
    kind: Kind,
    groups: Range<u16>,
    parts: &[SnapshotPart],
    states: Vec<StateDescriptor>,
    migrate: &mut dyn Migrate,
) -> Result<Fixture, Error> {
    let directory = TempDir::new().expect("a directory");
    let timers = vec![event_timer("t")];
    let store = KeyedStore::restore_migrating(&settings(kind, &directory), groups, parts, states, timers, migrate)?;
    Ok(Fixture { store, directory, snapshots: 0 })
}

/// That each key of the store's groups has its number everywhere.
fn check(fixture: &mut Fixture, of: &str) {
    let groups = fixture.store.groups();
    let mine: Vec<i64> = (0..KEYS).filter(|&key| groups.contains(&keys([key]).group(0).0)).collect();
    for chunk in mine.chunks(1_000) {
        let resolved = fixture.resolve(chunk.iter().copied());
        let expected: Vec<Option<i64>> = chunk.iter().copied().map(Some).collect();
        let values = fixture.store.load(0, &resolved, at(0)).expect("a good disk");
        assert_eq!(values.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), expected, "{of}");
        let numbers: Vec<u32> = (0..chunk.len() as u32).collect();
        let entries = fixture.store.map_get(1, &resolved, &numbers, &ints(chunk.iter().map(|key| -key)), NOW).expect("a good disk");
        assert_eq!(entries.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), expected, "{of}");
        let span = |key| Span { key, after: None, before: None, newest_first: false, limit: 9 };
        let found = fixture.store.scan(2, &resolved, &numbers.iter().map(|&key| span(key)).collect::<Vec<_>>(), usize::MAX, NOW);
        let elements = found.expect("a good disk").values.as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(elements, chunk.iter().flat_map(|&key| [key, key]).collect::<Vec<_>>(), "{of}");
        assert_eq!(fixture.load_ints(3, chunk), expected, "{of}");
    }
}

#[test]
fn values_of_all_kinds_are_migrated_on_every_backend_and_at_another_parallelism() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut before = texts(kind);
        let part = take(&mut before, 1_000, |_| {});
        let states = declared(2, &DataType::Int64);
        assert_eq!(part.description.states_to_migrate(&states).expect("a good description"), ["v", "m", "l"]);
        let of = format!("{kind:?} to {target:?}");
        let (mut parts, mut halves, mut migrated) = (Vec::new(), Vec::new(), 0);
        for groups in [0..2_000, 2_000..KEY_GROUPS] {
            let mut migrate = Asked(parse, Vec::new());
            let from = std::slice::from_ref(&part);
            let mut half = restore_migrating(target, groups, from, states.clone(), &mut migrate).expect("it can be parsed");
            assert!(
                migrate.1.iter().all(|(name, version, data_type, _)| (name != "same", *version, data_type) == (true, 1, &DataType::Utf8))
            );
            migrated += migrate.1.iter().map(|(_, _, _, values)| values).sum::<usize>();
            check(&mut half, &of);
            parts.push(take(&mut half, 1_000, |_| {}));
            halves.push(half);
        }
        assert_eq!(migrated, 4 * KEYS as usize, "{of}: once each");
        check(&mut restore_as(kind, 0..KEY_GROUPS, &parts, states, vec![]).expect("of version 2 throughout"), &of);
    }
}

#[test]
fn refresh_times_outlive_a_migration() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut before = texts(kind);
        let part = [take(&mut before, 1_000, |_| {})];
        let states = declared(2, &DataType::Int64);
        let mut restored = restore_migrating(target, 0..KEY_GROUPS, &part, states, &mut Asked(parse, vec![])).expect("it can be parsed");
        let keys = restored.resolve([4_999, 5_000]);
        let values = restored.store.load(0, &keys, at(1_004_000)).expect("a good disk");
        let values: Vec<_> = values.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(values, [None, Some(5_000)], "{kind:?} to {target:?}: written at 4,000 and at 5,000, kept for 1,000,000");
    }
}

/// Version 1 is read as version 2 by the rules, and only then migrated to version 3: the function knows version 2 alone.
#[test]
fn what_was_written_before_the_version_of_the_snapshot_is_migrated_as_that_version() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let version = |version, value_type| vec![StateDescriptor { version, ..value_state("n", value_type) }];
        let mut fixture = open(kind, version(1, DataType::Int32), vec![]);
        let keys = fixture.resolve([1, 2]);
        let values: ArrayRef = Arc::new(arrow_array::PrimitiveArray::<Int32Type>::from(vec![5, 6]));
        fixture.store.update_values(0, &keys, &all(&keys), &values, NOW).expect("a good disk");
        fixture.forget_keys();
        fixture.store.redeclare(version(2, DataType::Int64), vec![]).expect("wider");
        fixture.put_ints(0, &[(2, Some(7))]);
        let part = [take(&mut fixture, 100, |_| {})];
        let mut migrate = Asked(|values: &ArrayRef| Ok(arrow_cast::cast(values, &DataType::Utf8)?), Vec::new());
        let mut restored =
            restore_migrating(target, 0..KEY_GROUPS, &part, version(3, DataType::Utf8), &mut migrate).expect("numbers have texts");
        assert_eq!(migrate.1, [("n".into(), 2, DataType::Int64, 2)]);
        let keys = restored.resolve([1, 2]);
        assert_eq!(&restored.load(0, &keys), &strings(&["5", "7"]), "{kind:?} to {target:?}");
    }
}

#[test]
fn a_migration_that_fails_or_lies_is_refused_and_the_snapshot_stays() {
    type Function = fn(&ArrayRef) -> Answer;
    let bad: [(&str, Function); 4] = [
        ("no number", |_| Err("no number".into())),
        ("answers Utf8", |values| Ok(values.clone())),
        ("values for", |values| Ok(ints(0..values.len() as i64 - 1))),
        ("with null", |values| Ok(some_ints(&vec![None; values.len()]))),
    ];
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut before = texts(kind);
        let part = [take(&mut before, 1_000, |_| {})];
        let states = declared(2, &DataType::Int64);
        for (reason, function) in bad {
            let restored = restore_migrating(target, 0..KEY_GROUPS, &part, states.clone(), &mut Asked(function, vec![]));
            let error = restored.err().expect("a bad migration");
            assert_eq!((error.kind(), error.to_string().contains("from version 1 to 2")), (ErrorKind::Guest, true), "{error}");
            let source = std::error::Error::source(&error).expect("what it said").to_string();
            assert!(source.contains(reason), "{source}");
        }
        assert!(matches!(restore_as(target, 0..KEY_GROUPS, &part, states.clone(), vec![]), Err(Error::Incompatible { .. })), "by none");
        let unversioned = declared(1, &DataType::Int64);
        let restored = restore_migrating(target, 0..KEY_GROUPS, &part, unversioned, &mut Asked(parse, vec![]));
        assert!(matches!(restored.err(), Some(Error::Incompatible { .. })), "another type needs another version");
        check(&mut restore_migrating(target, 0..KEY_GROUPS, &part, states, &mut Asked(parse, vec![])).expect("still there"), "");
    }
}
