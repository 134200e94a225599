//! An instance of a stream operator: described, planned, opened, then called once per batch.

use std::{sync::Arc, time::Duration};

use crate::{
    agree::{self, TextField},
    bindings::{exports::millstream::operator::operator as raw, millstream::operator::columns},
    component::Shared,
    error::{Error, Failure},
    guest::InstanceContext,
    instance::Instance,
    limits::Call,
    log::printable,
    lower::{self, Lowered},
    meter::metered,
    plan::{Descriptor, InputSchema, OperatorPlan},
    turn::{CallKeys, CallResult, CallStats, Collections, DueTimers, Moment, RowNotes, Rows, Turn},
    verify::{self, CallShape},
};

/// One instance of an operator component. Owned by one subtask; calls never overlap.
///
/// After a failure other than `Retry`, and when the future of a call is dropped before its end, the instance is spent: every further
/// call fails. Make a new one; the host has the state, so nothing is lost.
pub struct OperatorInstance {
    instance: Instance,
    guest: raw::Guest,
    descriptor: Option<Descriptor>,
    opened: Option<Opened>,
}

/// What `open` fixed.
struct Opened {
    plan: Arc<OperatorPlan>,
    /// Per input: whether its rows have event times.
    timed: Vec<bool>,
}

impl OperatorInstance {
    pub(crate) async fn new(shared: Arc<Shared>, indices: &raw::GuestIndices, context: InstanceContext) -> Result<Self, Error> {
        let (mut instance, made) = Instance::new(shared, context).await?;
        let guest = indices.load(&mut instance.store, &made).expect("the exports were looked up in the same component");
        Ok(Self { instance, guest, descriptor: None, opened: None })
    }

    /// What the component says of itself.
    ///
    /// # Errors
    /// The guest fails, or the answer is no description.
    pub async fn describe(&mut self) -> Result<Descriptor, Error> {
        if let Some(known) = &self.descriptor {
            return Ok(known.clone());
        }
        let running = self.instance.begin(Call::Describe)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_describe(&mut self.instance.store)).await;
        drop(running);
        let answer = self.instance.end(Call::Describe, answer, busy)?;
        let descriptor = agree::descriptor(answer).map_err(|reason| self.bad_plan(Call::Describe, reason))?;
        self.descriptor = Some(descriptor.clone());
        Ok(descriptor)
    }

    /// What it will read, keep and emit, given these settings and inputs: checked against both and against its description.
    ///
    /// # Errors
    /// `Declined`: settings or inputs do not suit it. `BadPlan`: its plan does not fit. Otherwise the call failed.
    pub async fn plan(&mut self, settings: &serde_json::Value, inputs: &[InputSchema]) -> Result<OperatorPlan, Error> {
        let descriptor = self.describe().await?;
        if inputs.len() != descriptor.inputs.len() {
            return Err(self.bad_plan(
                Call::Plan,
                format!("{} inputs ({}), but {} are given", descriptor.inputs.len(), descriptor.inputs.join(", "), inputs.len()),
            ));
        }
        let texts = InputTexts::of(inputs)?;
        let fields = texts.fields();
        let params = texts.params(&fields, inputs);
        let settings = settings_text(settings);
        let running = self.instance.begin(Call::Plan)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_plan(&mut self.instance.store, &settings, &params)).await;
        drop(running);
        let answer = self.instance.end(Call::Plan, answer, busy)?;
        let planned = answer.map_err(|message| self.declined(Call::Plan, message))?;
        agree::plan(planned, &descriptor, inputs).map_err(|reason| self.bad_plan(Call::Plan, reason))
    }

    /// Makes the instance ready for rows. `inputs` are the whole inputs as given to [`Self::plan`]; the guest is told of the columns
    /// that `plan` reads, followed by key columns that it does not read.
    ///
    /// # Errors
    /// `Declined`: the guest says no. Otherwise the call failed.
    ///
    /// # Panics
    /// `plan` was not made for `inputs`.
    pub async fn open(&mut self, settings: &serde_json::Value, inputs: &[InputSchema], plan: Arc<OperatorPlan>) -> Result<(), Error> {
        let opened: Vec<InputSchema> = inputs.iter().zip(&plan.inputs).map(|(input, plan)| agree::opened_input(input, plan)).collect();
        let texts = InputTexts::of(&opened)?;
        let fields = texts.fields();
        let params = texts.params(&fields, &opened);
        let settings = settings_text(settings);
        let running = self.instance.begin(Call::Open)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_open(&mut self.instance.store, &settings, &params)).await;
        drop(running);
        let answer = self.instance.end(Call::Open, answer, busy)?;
        answer.map_err(|message| self.declined(Call::Open, message))?;
        self.instance.store.data_mut().plan = Some(plan.clone());
        self.opened = Some(Opened { plan, timed: inputs.iter().map(|input| input.event_times).collect() });
        Ok(())
    }

    /// Handles rows of input `port`. The collections are given back, unless the future is dropped.
    ///
    /// # Panics
    /// The instance is not open, or the columns are not those that the plan reads.
    pub async fn process(&mut self, now: Moment, port: u32, rows: Rows, collections: Option<Box<dyn Collections>>) -> CallResult {
        self.lend(now, rows.keys.as_ref(), collections);
        let result = self.call_process(now, port, rows).await;
        (result, self.take_back())
    }

    /// Handles timers that are due. The collections are given back, unless the future is dropped.
    ///
    /// # Panics
    /// The instance is not open.
    pub async fn on_timers(&mut self, now: Moment, due: DueTimers, collections: Option<Box<dyn Collections>>) -> CallResult {
        self.lend(now, Some(&due.keys), collections);
        let result = self.call_on_timers(now, due).await;
        (result, self.take_back())
    }

    /// What the last call answered was applied: its metrics count. Those of a call that this is not said of never happened.
    pub fn applied(&mut self) {
        self.instance.applied();
    }

    /// From now on a call may use so much CPU time, and never more than [`crate::Limits::cpu_per_call`]: for a guest whose time somebody counts.
    pub fn limit_cpu(&mut self, per_call: Duration) {
        self.instance.limit_cpu(per_call);
    }

    /// What the last call cost.
    pub fn last_call(&self) -> CallStats {
        self.instance.stats()
    }

    /// What is known of the rows or timers of the next call.
    pub fn note_rows(&mut self, rows: RowNotes) {
        self.instance.store.data_mut().rows = rows;
    }

    /// What was lent for a call: its collections go back.
    fn take_back(&mut self) -> Option<Box<dyn Collections>> {
        let host = self.instance.store.data_mut();
        host.rows = RowNotes::default();
        host.collections.take()
    }

    fn lend(&mut self, now: Moment, keys: Option<&CallKeys>, collections: Option<Box<dyn Collections>>) {
        let host = self.instance.store.data_mut();
        host.world.set_wall_clock(now.processing_time_ms);
        host.call_keys = keys.map_or(0, |keys| keys.length);
        host.collections = collections;
    }

    async fn call_process(&mut self, now: Moment, port: u32, rows: Rows) -> Result<Turn, Failure> {
        let plan = self.opened().plan.clone();
        let planned = &plan.inputs[port as usize];
        assert_eq!(rows.columns.len(), planned.reads.len(), "the columns that the plan reads");
        let keys = rows.keys.as_ref().filter(|_| planned.keyed);
        let event_times = rows.event_times.as_ref().filter(|_| planned.event_times);

        let columns = Lowered::of(&rows.columns);
        let values = LoweredKeys::of(keys);
        let numbers = lower::bytes(event_times).len() + lower::bytes(rows.changes.as_ref()).len();
        self.instance.lowering(Call::Process, columns.bytes() + values.bytes(keys) + numbers as u64)?;
        let (column_slices, value_slices) = (columns.slices(), values.columns.slices());
        let (columns, value_columns) = (columns.params(&column_slices), values.columns.params(&value_slices));
        let param = raw::Rows {
            length: rows.length,
            columns: &columns,
            event_times: lower::bytes(event_times),
            changes: lower::bytes(rows.changes.as_ref()),
            keys: keys.map(|keys| keys_param(keys, &value_columns)),
        };

        let running = self.instance.begin(Call::Process)?;
        let meter = self.instance.meter();
        let (answer, busy) = metered(&meter, self.guest.call_process(&mut self.instance.store, moment(now), port, param)).await;
        drop(running);
        let answer = self.instance.end(Call::Process, answer, busy)?;
        let shape = CallShape {
            plan: &plan,
            limits: &self.instance.shared().runtime.limits.clone(),
            port: Some(port),
            rows: rows.length,
            timed: self.opened().timed[port as usize],
            keys: keys.map(|keys| keys.length),
            key_of_row: keys.and_then(|keys| keys.of_row.as_ref()),
        };
        self.turn(Call::Process, answer, &shape)
    }

    async fn call_on_timers(&mut self, now: Moment, due: DueTimers) -> Result<Turn, Failure> {
        let plan = self.opened().plan.clone();
        let key_columns = Lowered::of(&due.key_columns);
        let values = LoweredKeys::of(Some(&due.keys));
        let numbers = 12 * u64::from(due.length);
        self.instance.lowering(Call::OnTimers, key_columns.bytes() + values.bytes(Some(&due.keys)) + numbers)?;
        let (key_slices, value_slices) = (key_columns.slices(), values.columns.slices());
        let (key_columns, value_columns) = (key_columns.params(&key_slices), values.columns.params(&value_slices));
        let param = raw::DueTimers {
            length: due.length,
            timer: lower::bytes(Some(&due.timer)),
            at: lower::bytes(Some(&due.at)),
            keys: keys_param(&due.keys, &value_columns),
            key_columns: &key_columns,
        };

        let running = self.instance.begin(Call::OnTimers)?;
        let meter = self.instance.meter();
        let (answer, busy) = metered(&meter, self.guest.call_on_timers(&mut self.instance.store, moment(now), param)).await;
        drop(running);
        let answer = self.instance.end(Call::OnTimers, answer, busy)?;
        let shape = CallShape {
            plan: &plan,
            limits: &self.instance.shared().runtime.limits.clone(),
            port: None,
            rows: due.length,
            // A row inherits the timer's time.
            timed: true,
            keys: Some(due.keys.length),
            key_of_row: due.keys.of_row.as_ref(),
        };
        self.turn(Call::OnTimers, answer, &shape)
    }

    fn turn(&mut self, call: Call, answer: Result<raw::Turn, raw::Failure>, shape: &CallShape<'_>) -> Result<Turn, Failure> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(raw::Failure::Retry(message)) => return Err(self.instance.gave_up(call, Failure::Retry(message))),
            Err(raw::Failure::Fatal(message)) => return Err(self.instance.gave_up(call, Failure::Fatal(message))),
        };
        let lifted_bytes = verify::lifted_bytes(&answer);
        match verify::turn(answer, shape) {
            Ok(turn) => {
                self.instance.accepted(lifted_bytes);
                Ok(turn)
            }
            Err(refusal) => Err(self.instance.refused(call, refusal)),
        }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("an instance is opened before it is given rows")
    }

    fn bad_plan(&self, call: Call, reason: String) -> Error {
        Error::BadPlan { site: self.instance.site(call), reason: printable(&reason) }
    }

    fn declined(&self, call: Call, message: String) -> Error {
        Error::Declined { site: self.instance.site(call), message: printable(&message) }
    }
}

/// JSON text; a job that gives no settings sends `{}`.
pub(crate) fn settings_text(settings: &serde_json::Value) -> String {
    if settings.is_null() { "{}".into() } else { settings.to_string() }
}

fn moment(now: Moment) -> columns::Moment {
    columns::Moment { watermark: now.watermark.map(|watermark| watermark.0), processing_time: now.processing_time_ms }
}

/// The values of a call's keys, as pieces of memory.
struct LoweredKeys {
    columns: Lowered,
}

impl LoweredKeys {
    fn of(keys: Option<&CallKeys>) -> Self {
        Self { columns: Lowered::of(keys.iter().flat_map(|keys| &keys.values)) }
    }

    fn bytes(&self, keys: Option<&CallKeys>) -> u64 {
        self.columns.bytes() + keys.map_or(0, |keys| lower::bytes(keys.of_row.as_ref()).len() as u64)
    }
}

/// Nothing is kept in the guest: no slots, every key is fresh.
fn keys_param<'a>(keys: &'a CallKeys, values: &'a [columns::ColumnParam<'a>]) -> raw::Keys<'a> {
    raw::Keys { slots: &[], length: keys.length, of_row: lower::bytes(keys.of_row.as_ref()), fresh: &[], values }
}

/// The fields of inputs as text, lent to the parameters of `plan` and `open`.
struct InputTexts(Vec<Vec<TextField>>);

impl InputTexts {
    fn of(inputs: &[InputSchema]) -> Result<Self, Error> {
        inputs.iter().enumerate().map(|(port, input)| agree::text_fields(&input.fields, port)).collect::<Result<_, _>>().map(Self)
    }

    fn fields(&self) -> Vec<Vec<columns::FieldParam<'_>>> {
        self.0.iter().map(|fields| fields.iter().map(TextField::param).collect()).collect()
    }

    fn params<'a>(&self, fields: &'a [Vec<columns::FieldParam<'a>>], inputs: &'a [InputSchema]) -> Vec<columns::Input<'a>> {
        let param = |(fields, input): (&'a Vec<columns::FieldParam<'a>>, &'a InputSchema)| columns::Input {
            fields,
            keys: &input.keys,
            event_times: input.event_times,
            changes: input.changes,
        };
        fields.iter().zip(inputs).map(param).collect()
    }
}
