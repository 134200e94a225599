//! State that does not fit into memory: a block cache of 16 MiB, and more state than cache and budget together.

use super::*;

const CACHE_BYTES: usize = 16 << 20;
const BUDGET_BYTES: usize = 16 << 20;
const TEXT_BYTES: usize = 1000;

/// Writes and reads back `state_bytes` of values in a scattered order, and gives the most memory the store took.
fn write_and_read(state_bytes: usize) -> usize {
    let directory = TempDir::new().expect("a directory");
    let shared = Arc::new(RocksShared::new(RocksSharedSettings { block_cache_bytes: CACHE_BYTES, write_buffer_bytes: CACHE_BYTES / 2 }));
    let backend = Backend::RocksDb { directory: directory.path().join("state"), shared };
    let settings = StoreSettings { backend, memory_budget_bytes: BUDGET_BYTES };
    let mut store =
        KeyedStore::open(&settings, 0..KEY_GROUPS, vec![value_state("text", DataType::Utf8)], vec![]).expect("good declarations");
    let count = (state_bytes / TEXT_BYTES) as i64;
    let text = |key: i64| format!("{key:0TEXT_BYTES$}");
    let mut most = 0;
    for start in (0..count).step_by(1024) {
        let batch: Vec<i64> = (start..(start + 1024).min(count)).collect();
        let resolved = store.resolve(keys(batch.iter().copied())).expect("a good disk");
        let values: ArrayRef = Arc::new(StringArray::from_iter_values(batch.iter().map(|&key| text(key))));
        store.update_values(0, &resolved, &all(&resolved), &values, NOW).expect("a good disk");
        most = most.max(store.stats().memory_bytes);
    }
    // 7,919 has no factor in common with powers of two and ten: every key comes once, none beside its neighbour.
    for start in (0..count).step_by(1024) {
        let batch: Vec<i64> = (start..(start + 1024).min(count)).map(|number| number * 7_919 % count).collect();
        let resolved = store.resolve(keys(batch.iter().copied())).expect("a good disk");
        let values = store.load(0, &resolved, NOW).expect("a good disk");
        let values = values.as_string::<i32>();
        assert!(batch.iter().enumerate().all(|(row, &key)| values.is_valid(row) && values.value(row) == text(key)));
        most = most.max(store.stats().memory_bytes);
    }
    assert!(store.stats().keys_evicted > count as u64);
    most
}

#[test]
fn state_may_be_larger_than_memory() {
    let most = write_and_read(96_000_000);
    assert!(most < BUDGET_BYTES + (4 << 20), "{most} bytes of a budget of {BUDGET_BYTES}");
}

/// Minutes long: `MILLSTREAM_SOAK=1 cargo test -p millstream-state two_gigabytes`.
#[test]
fn state_of_two_gigabytes_needs_no_more_memory() {
    if std::env::var_os("MILLSTREAM_SOAK").is_some() {
        assert!(write_and_read(2 << 30) < BUDGET_BYTES + (4 << 20));
    }
}
