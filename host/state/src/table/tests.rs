use std::collections::HashMap;

use millstream_model::key::KEY_GROUPS;
use proptest::prelude::*;

use super::*;

fn encoded(keys: &[Vec<u8>]) -> EncodedKeys {
    let mut encoded = EncodedKeys::default();
    keys.iter().for_each(|key| encoded.push(key));
    encoded
}

fn resolve(table: &mut KeyTable, keys: &[Vec<u8>]) -> Vec<u32> {
    let found = table.resolve(&encoded(keys), |_| {}).expect("small keys of our groups");
    let of_row = found.of_row.unwrap_or_else(|| (0..keys.len() as u32).collect());
    of_row.iter().map(|&number| found.slots[number as usize].0).collect()
}

#[test]
fn many_keys_keep_their_slots() {
    let mut table = KeyTable::new(2, 0..KEY_GROUPS);
    let keys: Vec<Vec<u8>> = (0..100_000_u32).map(|key| key.to_be_bytes().repeat(1 + key as usize % 9)).collect();
    let slots: Vec<u32> = keys.chunks(1000).flat_map(|chunk| resolve(&mut table, chunk)).collect();
    assert_eq!(table.len(), keys.len());
    assert_eq!(keys.chunks(777).flat_map(|chunk| resolve(&mut table, chunk)).collect::<Vec<_>>(), slots);
    for (key, &slot) in keys.iter().zip(&slots).step_by(97) {
        let mut bytes = Vec::new();
        table.key(Slot(slot), &mut bytes);
        assert_eq!(&bytes, key);
    }
}

#[test]
fn a_grown_table_stays_inside_its_memory() {
    let mut table = KeyTable::new(2, 0..KEY_GROUPS);
    let keys: Vec<Vec<u8>> = (0..100_000_u32).map(|key| key.to_be_bytes().to_vec()).collect();
    keys.chunks(1000).for_each(|chunk| drop(resolve(&mut table, chunk)));
    // A row of 64 bytes, and 10.7 to 21.4 bytes of the index.
    assert!(table.bytes() / keys.len() < 90, "{} bytes per key", table.bytes() / keys.len());
}

proptest! {
    /// Keys come and go; the table agrees with a map. Few tags, so that buckets overflow.
    #[test]
    fn slots_are_those_of_a_map(steps in proptest::collection::vec((any::<bool>(), 0_u32..600), 1..2000)) {
        let mut index = Index::new();
        let mut model: HashMap<u32, u32> = HashMap::new();
        let tag = |key: u32| Tag::of(u64::from(key % 40) << 58 | u64::from(key / 300) << 32);
        for (slot, (insert, key)) in steps.into_iter().enumerate() {
            if insert {
                if let std::collections::hash_map::Entry::Vacant(entry) = model.entry(key) {
                    index.reserve(1);
                    index.insert(tag(key), entry.insert(slot as u32).to_owned());
                }
            } else if let Some(slot) = model.remove(&key) {
                index.remove(tag(key), slot);
            }
            prop_assert_eq!(index.find(tag(key), |slot| model.get(&key) == Some(&slot)), model.get(&key).copied());
        }
        for (key, slot) in &model {
            prop_assert_eq!(index.find(tag(*key), |found| found == *slot), Some(*slot));
            prop_assert!(index.first(tag(*key)) != NO_SLOT);
        }
    }
}
