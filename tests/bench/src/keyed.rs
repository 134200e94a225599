//! A keyed count and sum, at batches of 4,096 rows: the whole engine with a Wasm operator; the guest and the key table alone, once by the protocol
//! of the contract (values travel with the batch) and once by the one that it did not take (batched get and put); and a hash map in native Rust.
//!
//! The engine is measured as a job from the first measured row to the last, all threads, all host work: keys are encoded, hashed and found, their
//! values loaded, sent, counted, checked and stored. The two protocols are measured side by side without an engine: on one thread, one call after
//! the other on the same batches, with the same key table. The guest of get and put is written by hand on the bindings and hashes its
//! keys by one multiplication; that of the contract is five lines of the SDK, so the comparison still favours get and put.

use std::{
    hint::black_box,
    num::NonZeroU32,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::{Array as _, ArrayRef, Int64Array, UInt32Array, cast::AsArray as _, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use hashbrown::HashMap;
use millstream_engine::run::RunSettings;
use millstream_model::{
    Batch,
    key::{KEY_GROUPS, encode_keys},
    state::{StateDescriptor, StateKind},
};
use millstream_state::{Backend, KeySet, KeyedStore, Moment, StoreSettings};
use millstream_wasm::{CallKeys, Collections, Found, InputSchema, OperatorInstance, Rows, Span};

use crate::{
    boundary::{NOW, context},
    figures::{Figure, median, thread_cpu_ns},
    guests::Guests,
    jobs,
    uniform::{BATCH, Probe, Uniform, batches, every_key},
};

const SAMPLES: usize = 5;
/// Batches that are made before and repeated.
const POOL: usize = 1_024;
/// Rows of a sample of the engine.
const ROWS: usize = 2 * POOL * BATCH;
const STATE_NOW: Moment = Moment { watermark: None, processing_time: 0 };

/// Keys: their number in words, their number, and the most ns that a row may take.
const KEYS: [(&str, u64, Option<f64>); 3] = [("100", 100, None), ("10 k", 10_000, Some(55.0)), ("1 M", 1_000_000, Some(70.0))];

/// All figures of this group.
///
/// # Errors
/// Something does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (label, keys, bound) in KEYS {
        figures.extend(measure_keys(guests, label, keys, bound).await?);
    }
    Ok(figures)
}

async fn measure_keys(guests: &Guests, label: &str, keys: u64, bound: Option<f64>) -> anyhow::Result<Vec<Figure>> {
    let pool = batches(keys, POOL);
    let mut get_put = GetPut::open(guests, keys).await?;
    let mut travelling = Travelling::open(guests, keys).await?;
    let mut native = Native::of(keys);
    let (mut engine_ns, mut get_put_ns, mut travelling_ns, mut native_ns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        engine_ns.push(engine(guests, keys).await?);
        get_put_ns.push(get_put.run(&pool).await?);
        travelling_ns.push(travelling.run(&pool).await?);
        native_ns.push(native.run(&pool));
    }
    let [engine, get_put, travelling, native] = [engine_ns, get_put_ns, travelling_ns, native_ns].map(median);
    let how = format!("{label} keys, uniform, 4,096 rows per batch, CPU time, median of {SAMPLES}");
    let name = |what: &str| format!("keyed count, {label} keys{what}");
    let whole = format!("{how}; the whole engine with a Wasm operator, all host work, parallelism 1");
    let against = format!("{how}; the guest and the key table alone, without an engine");
    Ok(vec![
        match bound {
            Some(bound) => Figure::at_most(name(""), engine, "ns/row", bound, whole),
            None => Figure::for_scale(name(""), engine, "ns/row", whole),
        },
        Figure::for_scale(name(", values travelling"), travelling, "ns/row", &against),
        Figure::for_scale(name(", batched get and put"), get_put, "ns/row", &against),
        Figure::at_least(name(", get and put against travelling"), get_put / travelling, "times", 1.0, &against),
        Figure::for_scale(name(", native hash map"), native, "ns/row", format!("{how}; a hash map from i64 in native Rust")),
    ])
}

/// ns per row of a job that counts.
async fn engine(guests: &Guests, keys: u64) -> anyhow::Result<f64> {
    let probe = Probe::default();
    let connectors = millstream_connectors::all().with_source(Uniform(probe.clone()));
    let plan = jobs::planned(&job(keys, ROWS, Some(POOL), "4GiB"), Path::new("."), &connectors, guests, NonZeroU32::MIN).await?;
    jobs::finished(&plan, RunSettings::new()).await?;
    Ok(probe.seconds() * 1e9 / ROWS as f64)
}

/// A keyed count over `keys` keys.
pub fn job(keys: u64, rows: usize, pool: Option<usize>, state_memory: &str) -> String {
    let pool = pool.map_or_else(String::new, |pool| format!(", pool: {pool}"));
    format!(
        "job: count
state-memory: {state_memory}
sources:
  rows:
    uniform: {{ keys: {keys}, rows: {rows}{pool} }}
operators:
  count:
    input: rows
    key-by: [key]
    component: {{ path: count.wasm }}
    rejected: none
sinks:
  none:
    blackhole: {{}}
"
    )
}

// ---- get and put ----

/// The guest that reads and writes in bulk, over a key table of the host.
struct GetPut {
    instance: OperatorInstance,
    store: Store,
}

/// The key table, lent to calls.
#[derive(Clone)]
struct Store(Arc<Mutex<KeyedStore>>);

impl GetPut {
    async fn open(guests: &Guests, keys: u64) -> anyhow::Result<Self> {
        let component = guests.component("get-put").await?;
        let column = |name: &str| Field::new(name, DataType::Int64, false);
        let input = InputSchema { fields: vec![column("key"), column("number")].into(), keys: vec![], event_times: false, changes: false };
        let mut instance = component.operator(context()).await?;
        let settings = serde_json::json!({});
        let plan = Arc::new(instance.plan(&settings, std::slice::from_ref(&input)).await?);
        instance.open(&settings, std::slice::from_ref(&input), plan.clone()).await?;
        let value = StateDescriptor { kind: StateKind::Value, map_key_type: None, ..plan.states[0].clone() };
        let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 4 << 30 };
        let store = KeyedStore::open(&settings, 0..KEY_GROUPS, vec![value], Vec::new())?;
        let mut opened = Self { instance, store: Store(Arc::new(Mutex::new(store))) };
        for batch in every_key(keys) {
            opened.step(&batch).await?;
        }
        Ok(opened)
    }

    /// ns per row.
    async fn run(&mut self, pool: &[Batch]) -> anyhow::Result<f64> {
        let began = thread_cpu_ns();
        for batch in pool {
            self.step(batch).await?;
        }
        Ok((thread_cpu_ns() - began) / (pool.len() * BATCH) as f64)
    }

    async fn step(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let length = batch.num_rows();
        // All rows belong to one key of the contract, so that the guest may read the keys of the rows as map keys.
        let keys = CallKeys { length: 1, of_row: Some(UInt32Array::from(vec![0; length]).values().clone()), values: Vec::new() };
        let columns = batch.columns().columns().to_vec();
        let rows = Rows { length: length as u32, columns, event_times: None, changes: None, keys: Some(keys) };
        let (turn, _) = self.instance.process(NOW, 0, rows, Some(Box::new(self.store.clone()))).await;
        for update in turn?.updates.maps {
            self.store.put(&update.map_keys, &update.values).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}

impl Store {
    fn with<T>(
        &self,
        keys: &ArrayRef,
        body: impl FnOnce(&mut KeyedStore, &KeySet) -> Result<T, millstream_state::Error>,
    ) -> Result<T, String> {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = encode_keys(std::slice::from_ref(keys), keys.len()).map_err(|error| error.to_string())?;
        let keys = store.resolve(encoded).map_err(|error| error.to_string())?;
        body(&mut store, &keys).map_err(|error| error.to_string())
    }

    fn put(&self, keys: &ArrayRef, values: &ArrayRef) -> Result<(), String> {
        self.with(keys, |store, keys| store.update_values(0, keys, &BooleanBuffer::new_set(keys.len()), values, STATE_NOW))
    }
}

impl Collections for Store {
    fn get(&mut self, _state: u32, _keys: &[u32], map_keys: &ArrayRef) -> Result<ArrayRef, String> {
        self.with(map_keys, |store, keys| store.load(0, keys, STATE_NOW))
    }

    fn scan(&mut self, _state: u32, _spans: &[Span], _bytes_max: u32) -> Result<Found, String> {
        Err("the guest reads by key".into())
    }
}

// ---- values that travel ----

/// The guest of the contract, over a key table of the host: what the engine does for one batch, and nothing around it.
struct Travelling {
    instance: OperatorInstance,
    store: KeyedStore,
}

impl Travelling {
    async fn open(guests: &Guests, keys: u64) -> anyhow::Result<Self> {
        let component = guests.component("count").await?;
        let column = |name: &str| Field::new(name, DataType::Int64, false);
        let input = InputSchema { fields: vec![column("key"), column("number")].into(), keys: vec![0], event_times: false, changes: false };
        let mut instance = component.operator(context()).await?;
        let settings = serde_json::json!({});
        let plan = Arc::new(instance.plan(&settings, std::slice::from_ref(&input)).await?);
        instance.open(&settings, std::slice::from_ref(&input), plan.clone()).await?;
        let store = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 4 << 30 };
        let store = KeyedStore::open(&store, 0..KEY_GROUPS, plan.states.clone(), Vec::new())?;
        let mut opened = Self { instance, store };
        for batch in every_key(keys) {
            opened.step(&batch).await?;
        }
        Ok(opened)
    }

    /// ns per row.
    async fn run(&mut self, pool: &[Batch]) -> anyhow::Result<f64> {
        let began = thread_cpu_ns();
        for batch in pool {
            self.step(batch).await?;
        }
        Ok((thread_cpu_ns() - began) / (pool.len() * BATCH) as f64)
    }

    async fn step(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let keys = self.store.resolve_columns(std::slice::from_ref(batch.column(0)), batch.num_rows())?;
        let values = vec![self.store.load(0, &keys, STATE_NOW)?];
        let call = CallKeys { length: keys.len() as u32, of_row: keys.of_row().cloned(), values };
        let columns = vec![batch.column(1).clone()];
        let rows = Rows { length: batch.num_rows() as u32, columns, event_times: None, changes: None, keys: Some(call) };
        let (turn, _) = self.instance.process(NOW, 0, rows, None).await;
        for update in turn?.updates.values {
            self.store.update_values(0, &keys, &update.changed, &update.values, STATE_NOW)?;
        }
        self.instance.applied();
        Ok(())
    }
}

// ---- native ----

struct Native(HashMap<i64, (u64, i64), hashbrown::DefaultHashBuilder>);

impl Native {
    fn of(keys: u64) -> Self {
        Self((0..keys.cast_signed()).map(|key| (key, (1, 0))).collect())
    }

    /// ns per row.
    fn run(&mut self, pool: &[Batch]) -> f64 {
        let began = thread_cpu_ns();
        for batch in pool {
            let column = |index: usize| batch.column(index).as_primitive::<Int64Type>();
            let (keys, numbers): (&Int64Array, &Int64Array) = (column(0), column(1));
            for (&key, &number) in keys.values().iter().zip(numbers.values()) {
                let total = self.0.entry(key).or_default();
                total.0 += 1;
                total.1 = total.1.wrapping_add(number);
            }
        }
        black_box(self.0.len());
        (thread_cpu_ns() - began) / (pool.len() * BATCH) as f64
    }
}
