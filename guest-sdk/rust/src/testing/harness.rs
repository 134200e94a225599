//! [`Harness`]: an operator with a host around it, in memory.

mod upgrade;

use std::{cell::RefCell, collections::BTreeMap, marker::PhantomData, rc::Rc};

use serde_json::{Map, Value};

use super::{
    host::{Answering, CONTEXT, KeyState, StateTypes, Store},
    json,
    kinds::DataType,
};
use crate::{
    argument::{Change, ReadRow, Row},
    bindings::{
        Column, Field, Input, Moment,
        exports::{Clock, DueTimers, Failure, Keys, Output, Planned, Rows, StateKind, Turn, Updates},
    },
    http::{self, Request, Response},
    operator::{self, Instance, Operator},
    value::{self, bits},
};

/// Calls after which a timer that sets itself again and again is cut, as the host does.
const TIMER_CHAIN_MAX: usize = 1000;

/// A row on its way in.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRow {
    /// The columns by name.
    pub columns: Map<String, Value>,
    /// Its event time, if the stream has any.
    pub time: Option<i64>,
    /// Its change kind.
    pub change: u8,
}

/// A row that came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Name of the output.
    pub output: String,
    /// The columns by name.
    pub columns: Map<String, Value>,
    /// Its event time, if it has one.
    pub time: Option<i64>,
    /// Its change kind.
    pub change: u8,
}

/// A row that was rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The row, as it came in; of a timer, the key.
    pub columns: Map<String, Value>,
    /// Why.
    pub reason: String,
}

/// An operator that runs natively. The type is the name of the function, or of the struct with the `impl` block.
pub struct Harness<O: Operator> {
    settings: String,
    inputs: Vec<TestInput>,
    rows_per_call: usize,
    watermark: Option<i64>,
    processing_time: i64,
    opened: Option<Opened<O>>,
    store: Rc<RefCell<Store>>,
    emitted: Vec<Emitted>,
    rejected: Vec<Rejection>,
    http: Option<Answering>,
    operator: PhantomData<O>,
}

/// An input, as the test describes it.
struct TestInput {
    name: String,
    /// None until the test or the first row says: then the columns that the operator reads.
    fields: Option<Vec<Field>>,
    keys: Vec<String>,
    changes: bool,
}

struct Opened<O> {
    instance: Instance<O>,
    planned: Planned,
    outputs: Vec<String>,
}

impl<O: Operator> Default for Harness<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Operator> Harness<O> {
    /// The operator without settings.
    pub fn new() -> Self {
        Self::with_settings("{}")
    }

    /// The operator with settings: JSON, as a job file would have them.
    pub fn with_settings(settings: &str) -> Self {
        let input = |name: String| TestInput { name, fields: None, keys: Vec::new(), changes: false };
        Self {
            settings: settings.to_owned(),
            inputs: operator::describe::<O>().inputs.into_iter().map(input).collect(),
            rows_per_call: 8192,
            watermark: None,
            processing_time: 0,
            opened: None,
            store: Rc::default(),
            emitted: Vec::new(),
            rejected: Vec::new(),
            http: None,
            operator: PhantomData,
        }
    }

    /// What comes back for each request of the operator, in place of the network.
    pub fn answer_requests(&mut self, answer: impl FnMut(&Request) -> Result<Response, http::Failure> + 'static) {
        self.http = Some(Rc::new(RefCell::new(answer)));
    }

    /// Keys all inputs by these columns.
    #[must_use]
    pub fn key_by<const N: usize>(mut self, columns: [&str; N]) -> Self {
        self.inputs.iter_mut().for_each(|input| input.keys = columns.map(str::to_owned).to_vec());
        self
    }

    /// Keys one input by these columns.
    pub fn key_input_by(&mut self, input: &str, columns: &[String]) {
        self.input(input).keys = columns.to_vec();
    }

    /// Gives an input these columns: name and data type, with `?` after the type if it may be null.
    pub fn schema(&mut self, input: &str, columns: &[(String, String)]) {
        let field = |(name, text): &(String, String)| {
            let (data_type, nullable) = text.strip_suffix('?').map_or((text.as_str(), false), |data_type| (data_type, true));
            Field { name: name.clone(), data_type: data_type.to_owned(), nullable }
        };
        self.input(input).fields = Some(columns.iter().map(field).collect());
    }

    /// Says that an input carries changes.
    pub fn carries_changes(&mut self, input: &str) {
        self.input(input).changes = true;
    }

    /// Sends at most so many rows per call; the results must not depend on it.
    #[must_use]
    pub fn rows_per_call(mut self, rows: usize) -> Self {
        self.rows_per_call = rows.max(1);
        self
    }

    /// Sends rows to the first input.
    pub fn rows<R: Row>(&mut self, rows: impl IntoIterator<Item = R>) {
        let name = self.inputs[0].name.clone();
        self.rows_to(&name, rows.into_iter().map(|row| (None, row)));
    }

    /// Sends rows with event times (ms) to the first input.
    pub fn rows_at<R: Row>(&mut self, rows: impl IntoIterator<Item = (i64, R)>) {
        let name = self.inputs[0].name.clone();
        self.rows_to(&name, rows.into_iter().map(|(time, row)| (Some(time), row)));
    }

    /// Sends rows, with event times or without, to an input by name.
    pub fn rows_to<R: Row>(&mut self, input: &str, rows: impl IntoIterator<Item = (Option<i64>, R)>) {
        let (times, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let mut builder = R::Builder::default();
        rows.iter().for_each(|row| row.append(&mut builder));
        let mut columns = Vec::new();
        R::finish_columns(builder, rows.len(), &mut columns);
        let fields = R::fields();
        let objects = objects(&fields, &columns, rows.len());
        self.input(input).fields.get_or_insert(fields);
        self.json_rows(input, objects.into_iter().zip(times).map(|(columns, time)| TestRow { columns, time, change: 0 }).collect());
    }

    /// Sends rows that are changes, with event times, to an input by name.
    pub fn changes_to<R: Row>(&mut self, input: &str, rows: impl IntoIterator<Item = (Change, Option<i64>, R)>) {
        self.carries_changes(input);
        for (change, time, row) in rows {
            let fields = R::fields();
            let mut builder = R::Builder::default();
            row.append(&mut builder);
            let mut columns = Vec::new();
            R::finish_columns(builder, 1, &mut columns);
            let object = objects(&fields, &columns, 1).remove(0);
            self.input(input).fields.get_or_insert(fields);
            self.json_rows(input, vec![TestRow { columns: object, time, change: change as u8 }]);
        }
    }

    /// Sends rows written as JSON to an input by name.
    pub fn json_rows(&mut self, input: &str, rows: Vec<TestRow>) {
        let port = self.inputs.iter().position(|known| known.name == input).unwrap_or_else(|| panic!("there is no input `{input}`"));
        self.open();
        for rows in rows.chunks(self.rows_per_call) {
            self.process(port, rows);
        }
        self.fire_timers();
    }

    /// Advances the watermark, which fires event-time timers.
    pub fn watermark(&mut self, time: i64) {
        self.open();
        assert!(self.watermark.is_none_or(|before| before <= time), "a watermark never goes backwards");
        self.watermark = Some(time);
        self.fire_timers();
    }

    /// Advances the host's clock, which fires processing-time timers.
    pub fn processing_time(&mut self, time: i64) {
        self.open();
        self.processing_time = time;
        self.fire_timers();
    }

    /// Ends all input: every event-time timer fires.
    pub fn end(&mut self) {
        self.watermark(i64::MAX);
    }

    /// Takes the rows of the first output.
    pub fn output<T: ReadRow<'static>>(&mut self) -> Vec<T> {
        let name = operator::describe::<O>().outputs.into_iter().next().unwrap_or_default();
        self.output_of(&name)
    }

    /// Takes the rows of an output by name, without what it keeps of its input.
    pub fn output_of<T: ReadRow<'static>>(&mut self, output: &str) -> Vec<T> {
        let taken = self.take_emitted(output);
        let values: Vec<Value> = taken.into_iter().map(|row| Value::Object(row.columns)).collect();
        let data_type = DataType::parse(&T::data_type()).expect("rows have a type");
        // Rows may borrow from the column for as long as the test likes.
        let column: &'static Column = Box::leak(Box::new(expect(json::to_column(&data_type, &values), "these rows came out")));
        let reader = value::read_column::<T>(column, values.len()).expect("the column was made of rows of this type");
        (0..values.len()).map(|row| T::get(&reader, row)).collect()
    }

    /// Takes the rows of all outputs, with what they keep of their inputs, in the order in which they came out of each.
    pub fn emitted(&mut self) -> Vec<Emitted> {
        std::mem::take(&mut self.emitted)
    }

    /// Takes the rejected rows.
    pub fn rejected(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejected)
    }

    /// Takes the lines logged by operators of this thread: `Info: text`.
    pub fn logs(&mut self) -> Vec<String> {
        CONTEXT.with_borrow_mut(|context| std::mem::take(&mut context.logs))
    }

    /// The sum of what operators of this thread added to a metric.
    pub fn metric(&self, name: &str) -> f64 {
        CONTEXT.with_borrow(|context| context.metrics.iter().filter(|(known, _)| known == name).map(|(_, value)| value).sum())
    }

    fn take_emitted(&mut self, output: &str) -> Vec<Emitted> {
        let (taken, rest) = std::mem::take(&mut self.emitted).into_iter().partition(|row| row.output == output);
        self.emitted = rest;
        taken
    }

    fn input(&mut self, name: &str) -> &mut TestInput {
        self.inputs.iter_mut().find(|input| input.name == name).unwrap_or_else(|| panic!("there is no input `{name}`"))
    }

    /// Plans and opens the operator, as the host does.
    fn open(&mut self) {
        if self.opened.is_some() {
            return;
        }
        // The columns that the operator reads stand in for a schema that no one gave.
        let unknown = |input: &TestInput| Input { fields: Vec::new(), keys: Vec::new(), event_times: true, changes: input.changes };
        let reads = self.reads(self.inputs.iter().map(unknown).collect());
        for (input, reads) in self.inputs.iter_mut().zip(reads) {
            input.fields.get_or_insert(reads);
        }
        let full: Vec<Input> = self.inputs.iter().map(|input| input.full()).collect();
        let planned = expect(operator::plan::<O>(&self.settings, &full), "the operator refused its plan");
        check_reads(&planned, &full, &self.inputs);
        let opened: Vec<Input> = self.inputs.iter().zip(&planned.inputs).map(|(input, plan)| input.opened(&plan.reads)).collect();
        let instance = expect(Instance::open(&self.settings, &opened), "the operator refused to open");
        self.store.borrow_mut().states = planned.states.iter().map(state_types).collect();
        self.opened = Some(Opened { instance, planned, outputs: operator::describe::<O>().outputs });
    }

    fn reads(&self, inputs: Vec<Input>) -> Vec<Vec<Field>> {
        if self.inputs.iter().all(|input| input.fields.is_some()) {
            return inputs.iter().map(|_| Vec::new()).collect();
        }
        let mut declaration = operator::Declaration::default();
        O::declare(&mut declaration);
        declaration.inputs.into_iter().map(|input| input.reads.fields).collect()
    }

    fn moment(&self) -> Moment {
        Moment { watermark: self.watermark, processing_time: self.processing_time }
    }

    fn process(&mut self, port: usize, rows: &[TestRow]) {
        let opened = self.opened.as_mut().expect("opened above");
        let plan = &opened.planned.inputs[port];
        let (keys, of_row) = distinct(rows.iter().map(|row| self.inputs[port].key_of(&row.columns)));
        let columns = plan.reads.iter().map(|field| column_of(field, rows)).collect();
        let times =
            plan.event_times.then(|| rows.iter().map(|row| row.time.expect("this operator reads event times: use rows_at")).collect());
        let call_keys = plan.keyed.then(|| call_keys(&keys, &of_row, &self.store.borrow()));
        let rows_in = Rows {
            length: rows.len() as u32,
            columns,
            event_times: times.map(pack_i64).unwrap_or_default(),
            changes: if self.inputs[port].changes { rows.iter().map(|row| row.change).collect() } else { Vec::new() },
            keys: call_keys,
        };
        let moment = Moment { watermark: self.watermark, processing_time: self.processing_time };
        let turn = self.in_call(&keys, |instance| instance.process(moment, port as u32, &rows_in));
        let times = rows.iter().map(|row| row.time).collect();
        self.apply(turn, &keys, &Sources { port: Some(port), rows: rows.iter().map(|row| row.columns.clone()).collect(), times });
    }

    /// Runs a call with the imports answered from this harness.
    fn in_call(&mut self, keys: &[String], call: impl FnOnce(&mut Instance<O>) -> Result<Turn, Failure>) -> Turn {
        CONTEXT.with_borrow_mut(|context| {
            context.store = Rc::clone(&self.store);
            context.call_keys = keys.to_vec();
            context.http = self.http.clone();
        });
        match call(&mut self.opened.as_mut().expect("opened before any call").instance) {
            Ok(turn) => turn,
            Err(Failure::Retry(reason) | Failure::Fatal(reason)) => panic!("the call failed: {reason}"),
        }
    }

    /// Fires due timers, one per key and call, earliest first, until none is due.
    fn fire_timers(&mut self) {
        for _ in 0..TIMER_CHAIN_MAX {
            let due = self.take_due();
            if due.is_empty() {
                return;
            }
            self.on_timers(&due);
        }
    }

    fn take_due(&mut self) -> Vec<(String, i64, usize)> {
        let timers = &self.opened.as_ref().expect("opened before timers").planned.timers;
        let is_due = |at: i64, timer: usize| match timers[timer].clock {
            Clock::EventTime => self.watermark.is_some_and(|watermark| watermark >= at),
            Clock::ProcessingTime => self.processing_time >= at,
        };
        let mut due = Vec::new();
        for (key, state) in &mut self.store.borrow_mut().keys {
            if let Some(first) = state.timers.iter().copied().find(|(at, timer)| is_due(*at, *timer)) {
                state.timers.remove(&first);
                due.push((key.clone(), first.0, first.1));
            }
        }
        due.sort_by_key(|(_, at, timer)| (*at, *timer));
        due
    }

    fn on_timers(&mut self, due: &[(String, i64, usize)]) {
        let keys: Vec<String> = due.iter().map(|(key, ..)| key.clone()).collect();
        let key_rows: Vec<Map<String, Value>> = keys.iter().map(|key| self.key_columns(key)).collect();
        let fields = self.inputs[0].key_fields();
        let rows: Vec<TestRow> = key_rows.iter().map(|columns| TestRow { columns: columns.clone(), time: None, change: 0 }).collect();
        let numbers: Vec<u32> = (0..keys.len() as u32).collect();
        let call = DueTimers {
            length: due.len() as u32,
            timer: due.iter().flat_map(|(_, _, timer)| (*timer as u32).to_le_bytes()).collect(),
            at: pack_i64(due.iter().map(|(_, at, _)| *at).collect()),
            keys: call_keys(&keys, &numbers, &self.store.borrow()),
            key_columns: fields.iter().map(|field| column_of(field, &rows)).collect(),
        };
        let moment = self.moment();
        let turn = self.in_call(&keys, |instance| instance.on_timers(moment, &call));
        let timers = &self.opened.as_ref().expect("opened before timers").planned.timers;
        let time = |(_, at, timer): &(String, i64, usize)| match timers[*timer].clock {
            Clock::EventTime => Some(*at),
            Clock::ProcessingTime => self.watermark,
        };
        let times = due.iter().map(time).collect();
        self.apply(turn, &keys, &Sources { port: None, rows: key_rows, times });
    }

    /// The key columns of a key, from its text.
    fn key_columns(&self, key: &str) -> Map<String, Value> {
        let values: Vec<Value> = serde_json::from_str(key).expect("keys are written as JSON");
        self.inputs[0].keys.iter().cloned().zip(values).collect()
    }

    fn apply(&mut self, turn: Turn, keys: &[String], sources: &Sources) {
        for rejected in &turn.rejected {
            let columns = sources.rows[rejected.row as usize].clone();
            self.rejected.push(Rejection { columns, reason: rejected.reason.clone() });
        }
        let rejected: Vec<u32> = turn.rejected.iter().map(|rejected| rejected.row).collect();
        let opened = self.opened.as_ref().expect("opened before any call");
        for output in turn.outputs {
            let emitted = rows_of(&output, opened, sources, &rejected);
            self.emitted.extend(emitted);
        }
        update(&mut self.store.borrow_mut(), turn.updates, keys);
    }
}

impl TestInput {
    fn fields(&self) -> &[Field] {
        self.fields.as_deref().unwrap_or_default()
    }

    fn key_fields(&self) -> Vec<Field> {
        self.keys.iter().map(|key| self.field(key)).collect()
    }

    fn field(&self, name: &str) -> Field {
        self.fields()
            .iter()
            .find(|field| field.name == name)
            .cloned()
            .unwrap_or_else(|| panic!("input `{}` has no column `{name}`", self.name))
    }

    fn full(&self) -> Input {
        self.input(self.fields().to_vec())
    }

    /// What `open` sees: the columns read, and then the key columns that are not.
    fn opened(&self, reads: &[Field]) -> Input {
        let mut fields = reads.to_vec();
        for key in self.key_fields() {
            if !fields.iter().any(|field| field.name == key.name) {
                fields.push(key);
            }
        }
        self.input(fields)
    }

    fn input(&self, fields: Vec<Field>) -> Input {
        let index = |key: &String| fields.iter().position(|field| field.name == *key);
        let keys = self.keys.iter().map(|key| index(key).unwrap_or_else(|| panic!("there is no key column `{key}`")) as u32).collect();
        Input { keys, fields, event_times: true, changes: self.changes }
    }

    fn key_of(&self, columns: &Map<String, Value>) -> String {
        let values: Vec<&Value> = self.keys.iter().map(|key| columns.get(key).unwrap_or(&Value::Null)).collect();
        serde_json::to_string(&values).expect("JSON values can be written")
    }
}

/// Where the rows of a call came from.
struct Sources {
    /// None: timers.
    port: Option<usize>,
    rows: Vec<Map<String, Value>>,
    times: Vec<Option<i64>>,
}

fn expect<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn parsed(text: &str) -> DataType {
    expect(DataType::parse(text), "types of the contract can be read")
}

/// The checks that the host makes at `plan`.
fn check_reads(planned: &Planned, full: &[Input], inputs: &[TestInput]) {
    for ((plan, input), test) in planned.inputs.iter().zip(full).zip(inputs) {
        assert!(plan.changes || !input.changes, "input `{}` carries changes, which the operator does not understand", test.name);
        for read in &plan.reads {
            let field = test.field(&read.name);
            assert!(field.data_type == read.data_type, "column `{}` is {}, not {}", read.name, field.data_type, read.data_type);
            assert!(read.nullable || !field.nullable, "column `{}` may be null: read it as an Option", read.name);
        }
    }
}

fn state_types(state: &crate::bindings::exports::State) -> StateTypes {
    let map_key = match state.kind {
        StateKind::AppendedList => DataType::UInt(8),
        _ => state.map_key_type.as_deref().map_or(DataType::Boolean, parsed),
    };
    StateTypes { value: parsed(&state.value_type), map_key, declared: state.clone() }
}

/// Distinct keys in order of appearance, and the number of each row's key.
fn distinct(keys: impl Iterator<Item = String>) -> (Vec<String>, Vec<u32>) {
    let mut numbers = BTreeMap::new();
    let mut distinct = Vec::new();
    let of_row = keys.map(|key| {
        *numbers.entry(key).or_insert_with_key(|key| {
            distinct.push(key.clone());
            distinct.len() as u32 - 1
        })
    });
    let of_row = of_row.collect();
    (distinct, of_row)
}

fn call_keys(keys: &[String], of_row: &[u32], store: &Store) -> Keys {
    let values = store.states.iter().enumerate().filter(|(_, types)| types.declared.kind == StateKind::Value).map(|(state, types)| {
        let value = |key: &String| store.keys.get(key).and_then(|key| key.values.get(&state)).cloned().unwrap_or_default();
        expect(json::to_column(&types.value, &keys.iter().map(value).collect::<Vec<_>>()), "kept values have their state's type")
    });
    Keys {
        slots: Vec::new(),
        length: keys.len() as u32,
        of_row: of_row.iter().flat_map(|key| key.to_le_bytes()).collect(),
        fresh: Vec::new(),
        values: values.collect(),
    }
}

fn column_of(field: &Field, rows: &[TestRow]) -> Column {
    let value = |row: &TestRow| row.columns.get(&field.name).cloned().unwrap_or_default();
    let values: Vec<Value> = rows.iter().map(value).collect();
    assert!(field.nullable || !values.iter().any(Value::is_null), "a row has no `{}`", field.name);
    expect(json::to_column(&parsed(&field.data_type), &values), &format!("column `{}`", field.name))
}

fn pack_i64(numbers: Vec<i64>) -> Vec<u8> {
    numbers.into_iter().flat_map(i64::to_le_bytes).collect()
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect()
}

fn objects(fields: &[Field], columns: &[Column], length: usize) -> Vec<Map<String, Value>> {
    let mut objects = vec![Map::new(); length];
    for (field, column) in fields.iter().zip(columns) {
        assert_eq!(column.length as usize, length, "column `{}` has another length than its rows", field.name);
        let values =
            json::from_column(&parsed(&field.data_type), column).unwrap_or_else(|error| panic!("column `{}`: {}", field.name, error.0));
        for (object, value) in objects.iter_mut().zip(values) {
            assert!(field.nullable || !value.is_null(), "a null in column `{}`, which has none", field.name);
            object.insert(field.name.clone(), value);
        }
    }
    objects
}

/// The rows of an output, with what they keep and inherit.
fn rows_of<O>(output: &Output, opened: &Opened<O>, sources: &Sources, rejected: &[u32]) -> Vec<Emitted> {
    let port = output.port as usize;
    let (name, plan) = (&opened.outputs[port], &opened.planned.outputs[port]);
    let length = output.length as usize;
    let from = if output.from.is_empty() { (0..output.length).collect() } else { numbers(&output.from) };
    assert_eq!(from.len(), length, "output `{name}`: one number per row");
    assert!(plan.keeps.is_none_or(|kept| sources.port == Some(kept as usize)), "output `{name}` keeps another input's columns");
    assert!(from.iter().all(|row| !rejected.contains(row)), "output `{name}` has a row of a rejected one");
    assert!(output.event_times.is_empty() != plan.sets_event_times, "output `{name}`: event times as planned");
    let times = output.event_times.as_chunks::<8>().0;
    let added = objects(&plan.adds, &output.columns, length);
    let row = |(index, columns): (usize, Map<String, Value>)| {
        let source = from[index] as usize;
        let mut all = if plan.keeps.is_some() { sources.rows[source].clone() } else { Map::new() };
        all.extend(columns);
        let time = times.get(index).map(|time| i64::from_le_bytes(*time)).or(sources.times[source]);
        Emitted { output: name.clone(), columns: all, time, change: output.changes.get(index).copied().unwrap_or(0) }
    };
    added.into_iter().enumerate().map(row).collect()
}

fn update(store: &mut Store, updates: Updates, keys: &[String]) {
    let Store { keys: kept, states } = store;
    for update in updates.values {
        let state = update.state as usize;
        let changed = (0..keys.len()).filter(|key| bits::is_set(&update.changed, *key));
        for (key, value) in changed.zip(values(&states[state].value, &update.values)) {
            let key = of(kept, &keys[key]);
            if value.is_null() {
                key.values.remove(&state)
            } else {
                key.values.insert(state, value)
            };
        }
    }
    for update in updates.maps {
        let (state, types) = (update.state as usize, &states[update.state as usize]);
        let entries = values(&types.map_key, &update.map_keys).into_iter().zip(values(&types.value, &update.values));
        for (index, (key, (map_key, value))) in numbers(&update.keys).into_iter().zip(entries).enumerate() {
            let map = of(kept, &keys[key as usize]).maps.entry(state).or_default();
            let order = json::order_key(&types.map_key, &map_key);
            let deleted = !update.deleted.is_empty() && bits::is_set(&update.deleted, index);
            if deleted {
                map.remove(&order)
            } else {
                map.insert(order, (map_key, value))
            };
        }
    }
    for update in updates.lists {
        let state = update.state as usize;
        for key in (0..keys.len()).filter(|key| !update.cleared.is_empty() && bits::is_set(&update.cleared, *key)) {
            of(kept, &keys[key]).lists.remove(&state);
        }
        for (key, value) in numbers(&update.keys).into_iter().zip(values(&states[state].value, &update.values)) {
            let list = of(kept, &keys[key as usize]).lists.entry(state).or_default();
            let position = list.last().map_or(0, |(position, _)| position + 1);
            list.push((position, value));
        }
    }
    for update in updates.timers {
        for (index, (key, at)) in numbers(&update.keys).into_iter().zip(update.at.as_chunks::<8>().0).enumerate() {
            let timers = &mut of(kept, &keys[key as usize]).timers;
            let timer = (i64::from_le_bytes(*at), update.timer as usize);
            let deleted = !update.deleted.is_empty() && bits::is_set(&update.deleted, index);
            if deleted {
                timers.remove(&timer)
            } else {
                timers.insert(timer)
            };
        }
    }
}

fn of<'s>(kept: &'s mut BTreeMap<String, KeyState>, key: &str) -> &'s mut KeyState {
    kept.entry(key.to_owned()).or_default()
}

fn values(data_type: &DataType, column: &Column) -> Vec<Value> {
    json::from_column(data_type, column).unwrap_or_else(|error| panic!("an update is malformed: {}", error.0))
}
