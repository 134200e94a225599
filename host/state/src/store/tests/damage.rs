//! Damaged snapshots, and reading good ones back as a whole.

use std::ops::ControlFlow;

use millstream_model::ErrorKind;

use super::{
    rescale::filled,
    snapshots::{restore, restore_as, take},
    *,
};
use crate::{SnapshotPart, StoreDescription};

fn try_restore(kind: Kind, part: &SnapshotPart) -> Result<Fixture, Error> {
    restore_as(kind, 0..KEY_GROUPS, std::slice::from_ref(part), vec![value_state("n", DataType::Int64)], vec![event_timer("t")])
}

fn small() -> (Fixture, SnapshotPart) {
    let mut fixture = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![event_timer("t")]);
    fixture.put_ints(0, &[(1, Some(1)), (2, Some(2)), (3, None)]);
    let keys = fixture.resolve([1]);
    let timers = TimerUpdate { timer: 0, keys: vec![0], at: vec![9], deleted: BooleanBuffer::new_unset(1) };
    fixture.store.update_timers(&keys, &timers).expect("a good update");
    let part = take(&mut fixture, 100, |_| {});
    (fixture, part)
}

#[test]
fn every_flipped_bit_and_every_truncation_of_our_file_is_found() {
    let (_fixture, part) = small();
    let path = part.directory.join("entries");
    let good = std::fs::read(&path).expect("the file");
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).expect("a good disk");
        let Err(error) = try_restore(Kind::Memory, &part) else { panic!("{what} was not found") };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().contains("entries"), "{what}: {error}");
    };
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        check(&bad, &format!("bit {bit}"));
    }
    (0..good.len()).for_each(|length| check(&good[..length], &format!("{length} bytes")));
    check(&[&good[..], &[0]].concat(), "one byte more");
    std::fs::remove_file(&path).expect("it is there");
    assert_eq!(try_restore(Kind::Memory, &part).err().map(|error| error.kind()), Some(ErrorKind::Corrupt));
}

#[test]
fn a_missing_file_of_the_database_is_found() {
    let mut fixture = filled(Kind::TinyRocksDb);
    let part = take(&mut fixture, 1_000, |_| {});
    let files: Vec<_> = std::fs::read_dir(&part.directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        let away = fixture.directory.path().join("away");
        std::fs::rename(&file, &away).expect("a good disk");
        for kind in KINDS {
            let Err(error) = try_restore(kind, &part) else { panic!("{} is not missed", file.display()) };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}: {error}", file.display());
        }
        std::fs::rename(&away, &file).expect("a good disk");
    }
    assert!(try_restore(Kind::RocksDb, &part).is_ok());
    assert!(std::fs::read_dir(&part.directory).expect("a directory").all(|entry| entry.expect("an entry").path().is_file()), "as it was");
}

#[test]
fn a_description_that_is_newer_or_contradicts_itself_is_refused() {
    let (_fixture, part) = small();
    let with = |change: &dyn Fn(&mut StoreDescription)| {
        let mut part = part.clone();
        change(&mut part.description);
        try_restore(Kind::Memory, &part).err().expect("refused")
    };
    let newer = with(&|description| description.format = 2);
    assert!(matches!(newer, Error::NewerFormat { format: 2, newest: 1 }), "{newer}");
    let changes: [&dyn Fn(&mut StoreDescription); 7] = [
        &|description| description.format = 0,
        &|description| description.entries += 1,
        &|description| description.states[0].prefix = description.timers[0].prefix,
        &|description| description.states[0].prefix = description.next_prefix,
        &|description| description.states[0].versions.clear(),
        &|description| description.states[0].versions[0].1 = "Struct(".into(),
        &|description| description.timers.push(description.timers[0].clone()),
    ];
    for (number, change) in changes.iter().enumerate() {
        assert_eq!(with(change).kind(), ErrorKind::Corrupt, "change {number}");
    }
}

#[test]
fn a_description_survives_json() {
    let mut fixture = filled(Kind::TinyRocksDb);
    fixture.store.set_key_types(&[DataType::Int64]).expect("a type with a text");
    let part = take(&mut fixture, 1_000, |_| {});
    let json = serde_json::to_string(&part.description).expect("text");
    assert_eq!(serde_json::from_str::<StoreDescription>(&json).expect("what was written"), part.description);
    assert_eq!(restore(Kind::Memory, 0..KEY_GROUPS, &[part]).store.key_types(), [DataType::Int64]);
}

#[test]
fn all_of_a_restored_store_can_be_read_page_by_page_and_by_key() {
    for kind in KINDS {
        let mut fixture = filled(kind);
        let part = take(&mut fixture, 1_000, |_| {});
        let restored = restore(kind, 0..KEY_GROUPS, &[part]);
        let mut values: Vec<i64> = Vec::new();
        restored
            .store
            .read_state(0, None, |page| {
                assert_eq!(page.keys.len(), page.values.len());
                values.extend(page.values.as_primitive::<Int64Type>().values());
                Ok(ControlFlow::Continue(()))
            })
            .expect("a good disk");
        values.sort_unstable();
        assert_eq!(values, (0..6_000).collect::<Vec<_>>(), "{kind:?}");
        let mut elements = 0;
        restored
            .store
            .read_state(1, None, |page| {
                elements += page.values.len();
                assert_eq!(page.map_keys.map(|positions| positions.len()), Some(page.values.len()));
                Ok(if elements > 8_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .expect("a good disk");
        assert_eq!(elements, 8_192, "{kind:?}: a break ends it");
        let key = keys([77]);
        let only = Some((key.key(0), key.group(0)));
        for (state, expected) in [(0, vec![77]), (1, vec![770, 771])] {
            let mut found: Vec<i64> = Vec::new();
            restored
                .store
                .read_state(state, only, |page| {
                    found.extend(page.values.as_primitive::<Int64Type>().values());
                    Ok(ControlFlow::Continue(()))
                })
                .expect("a good disk");
            assert_eq!(found, expected, "{kind:?}");
        }
        let mut times: Vec<i64> = Vec::new();
        restored
            .store
            .read_timers(0, None, |page| {
                times.extend(page.at);
                Ok(ControlFlow::Continue(()))
            })
            .expect("a good disk");
        assert_eq!(times, (0..6_000).collect::<Vec<_>>(), "{kind:?}");
    }
}
