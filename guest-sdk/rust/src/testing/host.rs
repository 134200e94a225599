//! The host of a test: state in memory, and the imports that read it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use serde_json::Value;

use super::{json, kinds::DataType};
use crate::{
    bindings::{Column, exports::State},
    http::{Failure, Request, Response},
};

/// What is kept for one key.
#[derive(Default)]
pub struct KeyState {
    /// Values by state.
    pub values: BTreeMap<usize, Value>,
    /// Entries by state and the order of their map key: map key and value.
    pub maps: BTreeMap<usize, BTreeMap<Vec<u8>, (Value, Value)>>,
    /// Elements by state, and the position of the next one.
    pub lists: BTreeMap<usize, Vec<(u64, Value)>>,
    /// Timers that are set: time and timer.
    pub timers: std::collections::BTreeSet<(i64, usize)>,
}

/// A state, its types parsed.
pub struct StateTypes {
    /// As declared.
    pub declared: State,
    /// The type of values.
    pub value: DataType,
    /// The type of map keys; of a list, that of positions.
    pub map_key: DataType,
}

/// All state of an operator.
#[derive(Default)]
pub struct Store {
    /// By the JSON text of the key.
    pub keys: BTreeMap<String, KeyState>,
    pub states: Vec<StateTypes>,
}

/// What stands for everybody who is asked over HTTP.
pub type Answering = Rc<RefCell<dyn FnMut(&Request) -> Result<Response, Failure>>>;

/// What the running call may read, and what it said.
#[derive(Default)]
pub struct Context {
    pub store: Rc<RefCell<Store>>,
    /// Keys of the call.
    pub call_keys: Vec<String>,
    pub logs: Vec<String>,
    /// What answers requests; none: nobody does.
    pub http: Option<Answering>,
    /// Name and value of each metric.
    pub metrics: Vec<(String, f64)>,
}

thread_local! {
    /// The context of the harness whose operator is running on this thread.
    pub static CONTEXT: RefCell<Context> = RefCell::default();
}

impl Context {
    fn get(&self, state: u32, keys: &[u8], map_keys: &Column) -> Result<Column, String> {
        let store = self.store.borrow();
        let types = store.states.get(state as usize).ok_or("there is no such state")?;
        let wanted = json::from_column(&types.map_key, map_keys).map_err(|error| error.0.to_owned())?;
        let keys = keys.as_chunks::<4>().0;
        if keys.len() != wanted.len() {
            return Err("one map key per key is wanted".into());
        }
        let find = |(key, map_key): (&[u8; 4], &Value)| {
            let entries = store.keys.get(self.call_keys.get(u32::from_le_bytes(*key) as usize)?)?.maps.get(&(state as usize))?;
            entries.get(&json::order_key(&types.map_key, map_key)).map(|(_, value)| value.clone())
        };
        let values: Vec<Value> = keys.iter().zip(&wanted).map(|request| find(request).unwrap_or_default()).collect();
        json::to_column(&types.value, &values)
    }

    fn scan(&self, state: u32, spans: &[imports::Span], bytes_max: u32) -> Result<imports::Found, String> {
        let store = self.store.borrow();
        let types = store.states.get(state as usize).ok_or("there is no such state")?;
        let (mut of_request, mut map_keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (request, span) in spans.iter().enumerate() {
            let key = self.call_keys.get(span.key as usize).ok_or("there is no such key in the call")?;
            let entries = store.keys.get(key).map(|key| entries_of(key, state as usize)).unwrap_or_default();
            for (map_key, value) in in_span(&types.map_key, entries, span)? {
                of_request.extend((request as u32).to_le_bytes());
                map_keys.push(map_key);
                values.push(value);
                let (keys, found) = (json::to_column(&types.map_key, &map_keys)?, json::to_column(&types.value, &values)?);
                if bytes_of(&keys) + bytes_of(&found) >= bytes_max as usize {
                    return Ok(imports::Found { of_request, map_keys: Some(keys), values: found });
                }
            }
        }
        let (keys, found) = (json::to_column(&types.map_key, &map_keys)?, json::to_column(&types.value, &values)?);
        Ok(imports::Found { of_request, map_keys: Some(keys), values: found })
    }
}

fn bytes_of(column: &Column) -> usize {
    column.buffers.iter().map(Vec::len).sum()
}

fn entries_of(key: &KeyState, state: usize) -> Vec<(Value, Value)> {
    let of_map = key.maps.get(&state).into_iter().flat_map(|map| map.values().cloned());
    let of_list = key.lists.get(&state).into_iter().flatten().map(|(position, value)| (Value::from(*position), value.clone()));
    of_map.chain(of_list).collect()
}

/// The entries strictly between the ends of a span, in its order, up to its limit.
fn in_span(map_key: &DataType, mut entries: Vec<(Value, Value)>, span: &imports::Span) -> Result<Vec<(Value, Value)>, String> {
    let end = |column: &Option<Column>| -> Result<Option<Vec<u8>>, String> {
        let Some(column) = column else { return Ok(None) };
        let values = json::from_column(map_key, column).map_err(|error| error.0.to_owned())?;
        Ok(values.first().map(|value| json::order_key(map_key, value)))
    };
    let (after, before) = (end(&span.after)?, end(&span.before)?);
    entries.retain(|(key, _)| {
        let key = json::order_key(map_key, key);
        after.as_ref().is_none_or(|after| key > *after) && before.as_ref().is_none_or(|before| key < *before)
    });
    if span.newest_first {
        entries.reverse();
    }
    if span.limit > 0 {
        entries.truncate(span.limit as usize);
    }
    Ok(entries)
}

/// The imports of a component, answered natively.
pub mod imports {
    use super::CONTEXT;
    use crate::{
        bindings::{Column, operator::millstream::operator::log::Level, operator::millstream::operator::metrics::Kind},
        http::{Failure, Request, Response},
    };

    pub use crate::bindings::operator::millstream::operator::collections::{Found, Span};

    pub fn emit(level: Level, message: &str) {
        CONTEXT.with_borrow_mut(|context| context.logs.push(format!("{level:?}: {message}").replace("Level::", "")));
    }

    pub fn emit_of(level: Level, message: &str, _row: u32) {
        emit(level, message);
    }

    pub fn define(name: &str, _: Kind, _: &str) -> u32 {
        CONTEXT.with_borrow_mut(|context| {
            context.metrics.push((name.to_owned(), 0.0));
            context.metrics.len() as u32 - 1
        })
    }

    pub fn add(metric: u32, value: f64) {
        CONTEXT.with_borrow_mut(|context| {
            if let Some((_, sum)) = context.metrics.get_mut(metric as usize) {
                *sum += value;
            }
        });
    }

    #[expect(clippy::panic, reason = "a test harness fails tests")]
    pub fn send(requests: &[Request]) -> Vec<Result<Response, Failure>> {
        let answering = CONTEXT.with_borrow(|context| context.http.clone());
        let Some(answering) = answering else { panic!("the operator sends requests: say with `Harness::answer_requests` what comes back") };
        let mut answering = answering.borrow_mut();
        requests.iter().map(&mut *answering).collect()
    }

    pub fn get(state: u32, keys: &[u8], map_keys: &Column) -> Result<Column, String> {
        CONTEXT.with_borrow(|context| context.get(state, keys, map_keys))
    }

    pub fn scan(state: u32, spans: &[Span], bytes_max: u32) -> Result<Found, String> {
        CONTEXT.with_borrow(|context| context.scan(state, spans, bytes_max))
    }
}
