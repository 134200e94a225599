//! What the macros make of an operator, and how its exports are answered.
//!
//! [`Operator`] is implemented by the macros, never by hand. [`Declaration`] gathers what the parameters of its handlers declare; from it
//! come `describe`, `plan` and the [`Layout`] by which a call finds its columns. [`Instance`] is one opened operator: it checks what the
//! host sent, lets the operator handle it, and turns what is wrong into `failure::fatal`.

use crate::{
    argument::Reads,
    bindings::{
        Column, Field, Input, Moment,
        exports::{self, Clock, Descriptor, DueTimers, Failure, InputPlan, OutputPlan, Planned, Rows, StateScope, TtlRefresh, Turn},
    },
    call::{Answer, Call},
    http,
    migration::{self, Migration},
    part::{PartOptions, State, Ttl},
    value::Malformed,
};

pub use exports::StateKind;

/// Static facts that the macros know.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Name of the crate.
    pub name: &'static str,
    /// Version of the crate.
    pub version: &'static str,
    /// First line of the documentation.
    pub summary: &'static str,
}

/// An operator. Made by `#[millstream::filter]`, `map`, `flat_map` and `operator`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator",
    label = "not an operator",
    note = "put #[millstream::filter], #[millstream::map], #[millstream::flat_map] or #[millstream::operator] on it"
)]
pub trait Operator: Sized + 'static {
    /// Static facts.
    const ABOUT: About;
    /// JSON Schema of the settings; empty: it takes none.
    fn settings_schema() -> String;
    /// Declares inputs, outputs, states and timers.
    fn declare(to: &mut Declaration);
    /// A new operator with these settings.
    ///
    /// # Errors
    /// The settings do not fit.
    fn open(settings: &str) -> Result<Self, String>;
    /// Handles the rows of one input.
    ///
    /// # Errors
    /// The call is malformed.
    fn process(&mut self, layout: &Layout, port: usize, call: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed>;
    /// Handles due timers. `timers`: index of the timer of each row of the call.
    ///
    /// # Errors
    /// The call is malformed.
    fn on_timers(&mut self, _layout: &Layout, _timers: &[[u8; 4]], _call: &Call<'_>, _answer: &mut Answer) -> Result<(), Malformed> {
        Err(Malformed("a timer is due that was never declared"))
    }
}

/// An input, as declared.
pub struct InputDeclaration {
    /// Its name.
    pub name: &'static str,
    /// Whether its handler has state or timers.
    pub keyed: bool,
    /// Whether it accepts changes whatever its handler reads.
    pub any_changes: bool,
    /// What its handler reads.
    pub reads: Reads,
}

/// What an operator declares, before any settings.
#[derive(Default)]
pub struct Declaration {
    /// Inputs, in order of their ports.
    pub inputs: Vec<InputDeclaration>,
    /// What each timer handler reads of the key, in order of the handlers.
    pub timer_reads: Vec<Reads>,
    /// Whether outputs carry the changes of the first input.
    pub pass_changes: bool,
    outputs: Vec<(String, OutputPlan)>,
    states: Vec<exports::State>,
    /// By state.
    migrations: Vec<&'static [Migration]>,
    timers: Vec<exports::Timer>,
    /// Index of each part among its kind, in order of declaration.
    parts: Vec<usize>,
}

impl Declaration {
    /// Declares an input that handlers read with `read`.
    pub fn input(&mut self, name: &'static str, keyed: bool, any_changes: bool, read: impl FnOnce(&mut Reads)) {
        let mut reads = Reads::default();
        read(&mut reads);
        self.inputs.push(InputDeclaration { name, keyed, any_changes, reads });
    }

    /// Declares what a timer handler reads of its key.
    pub fn timer_handler(&mut self, read: impl FnOnce(&mut Reads)) {
        let mut reads = Reads::default();
        read(&mut reads);
        self.timer_reads.push(reads);
    }

    /// Notes a declared part.
    pub fn part(&mut self, index: usize) {
        self.parts.push(index);
    }

    /// Declares an output.
    pub fn output(&mut self, name: &str, plan: OutputPlan) -> usize {
        self.outputs.push((name.to_owned(), plan));
        self.outputs.len() - 1
    }

    /// Declares a state of values `V`.
    pub fn state<V: State>(&mut self, name: &str, kind: StateKind, map_key_type: Option<String>, options: PartOptions) -> usize {
        self.states.push(exports::State {
            name: options.name.unwrap_or(name).to_owned(),
            kind,
            scope: StateScope::Keyed,
            map_key_type,
            value_type: V::data_type(),
            version: options.version.unwrap_or(V::VERSION),
            ttl: options.ttl.or(V::TTL).map(ttl),
        });
        self.migrations.push(V::MIGRATIONS);
        self.states.len() - 1
    }

    /// Declares a timer.
    pub fn timer(&mut self, name: &str, clock: Clock) -> usize {
        self.timers.push(exports::Timer { name: name.to_owned(), clock });
        self.timers.len() - 1
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|(name, _)| name.clone()).collect()
    }

    fn of<O: Operator>() -> Self {
        let mut declaration = Self::default();
        O::declare(&mut declaration);
        declaration
    }

    fn plan(self, inputs: &[Input]) -> Result<Planned, String> {
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|input| input.name).collect();
            return Err(format!("this operator has {} inputs ({}), not {}", names.len(), names.join(", "), inputs.len()));
        }
        for reads in &self.timer_reads {
            reads.fields.iter().try_for_each(|field| find_key(field, inputs).map(drop))?;
        }
        let mut all = self.inputs.iter().map(|input| &input.reads).chain(&self.timer_reads);
        if all.any(|reads| reads.answers != reads.requests) {
            return Err("whoever takes an `Answer` says with `fn request` what is asked, and the other way round".into());
        }
        let asks = self.inputs.iter().any(|input| input.reads.requests);
        let times = |input: &InputDeclaration| input.reads.event_times;
        let changes = self.pass_changes && inputs.first().is_some_and(|input| input.changes);
        let outputs = self.outputs.into_iter().map(|(_, plan)| OutputPlan { changes: plan.changes || changes, ..plan });
        Ok(Planned {
            outputs: outputs.collect(),
            inputs: self
                .inputs
                .into_iter()
                .map(|input| InputPlan {
                    keyed: input.keyed,
                    event_times: times(&input),
                    changes: input.any_changes || input.reads.changes,
                    reads: input.reads.fields,
                })
                .collect(),
            states: self.states,
            timers: self.timers,
            hints: if asks { vec![("rows-max".into(), http::ROWS_MAX.into())] } else { Vec::new() },
        })
    }

    fn layout(self, inputs: &[Input]) -> Result<Layout, String> {
        let of_timer = |reads: Reads| reads.order.iter().map(|index| find_key(&reads.fields[*index], inputs)).collect::<Result<_, _>>();
        let mut values = 0..;
        Ok(Layout {
            timer_columns: self.timer_reads.into_iter().map(of_timer).collect::<Result<_, _>>()?,
            columns: self.inputs.into_iter().map(|input| input.reads.order).collect(),
            value_columns: self.states.iter().map(|state| if state.kind == StateKind::Value { values.next() } else { None }).collect(),
            parts: self.parts,
        })
    }
}

fn ttl(ttl: Ttl) -> exports::Ttl {
    let clock = if ttl.processing_time { Clock::ProcessingTime } else { Clock::EventTime };
    exports::Ttl { ms: ttl.ms, clock, refresh: if ttl.on_read { TtlRefresh::OnRead } else { TtlRefresh::OnWrite } }
}

/// Which of the stream's key columns a timer handler's column is.
fn find_key(field: &Field, inputs: &[Input]) -> Result<usize, String> {
    let keyed = inputs.iter().find(|input| !input.keys.is_empty()).or(inputs.first());
    let keys: Vec<&Field> =
        keyed.map(|input| input.keys.iter().filter_map(|key| input.fields.get(*key as usize)).collect()).unwrap_or_default();
    keys.iter().position(|key| key.name == field.name).ok_or_else(|| {
        let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
        format!("the timer handler reads `{}`, but the stream is keyed by [{}]", field.name, names.join(", "))
    })
}

/// Where the parts of an operator find their columns and numbers, decided at `open`.
#[derive(Debug)]
pub struct Layout {
    /// Per input: the column of each column parameter.
    pub columns: Vec<Vec<usize>>,
    /// Per timer handler: the key column of each column parameter.
    pub timer_columns: Vec<Vec<usize>>,
    /// Index of each part among its kind.
    pub parts: Vec<usize>,
    value_columns: Vec<Option<usize>>,
}

/// The answer to `describe`.
pub fn describe<O: Operator>() -> Descriptor {
    let declaration = Declaration::of::<O>();
    Descriptor {
        name: O::ABOUT.name.into(),
        version: O::ABOUT.version.into(),
        summary: O::ABOUT.summary.into(),
        settings_schema: O::settings_schema(),
        inputs: declaration.inputs.iter().map(|input| input.name.to_owned()).collect(),
        outputs: declaration.output_names(),
        hints: vec![("sdk".into(), concat!("rust ", env!("CARGO_PKG_VERSION")).into())],
    }
}

/// The answer to `plan`.
///
/// # Errors
/// The settings or inputs do not fit the operator.
pub fn plan<O: Operator>(settings: &str, inputs: &[Input]) -> Result<Planned, String> {
    O::open(settings)?;
    Declaration::of::<O>().plan(inputs)
}

/// The answer to `migrate`.
///
/// # Errors
/// There is no way from these values to the present type of the state, or one of them is impossible.
pub fn migrate<O: Operator>(state: &str, from: (u32, &str), values: &Column) -> Result<Column, String> {
    let declaration = Declaration::of::<O>();
    let number = declaration.states.iter().position(|declared| declared.name == state);
    let number = number.ok_or_else(|| format!("this operator has no state `{state}`"))?;
    migration::migrate(state, declaration.migrations[number], from, values)
}

/// One opened operator.
pub struct Instance<O> {
    operator: O,
    layout: Layout,
}

impl<O: Operator> Instance<O> {
    /// Opens an operator.
    ///
    /// # Errors
    /// The settings or inputs do not fit.
    pub fn open(settings: &str, inputs: &[Input]) -> Result<Self, String> {
        Ok(Self { operator: O::open(settings)?, layout: Declaration::of::<O>().layout(inputs)? })
    }

    /// Handles the rows of input `port`.
    ///
    /// # Errors
    /// The call is malformed.
    pub fn process(&mut self, now: Moment, port: u32, rows: &Rows) -> Result<Turn, Failure> {
        let Self { operator, layout } = self;
        if port as usize >= layout.columns.len() {
            return Err(fatal(&Malformed("there is no such input")));
        }
        let mut answer = Answer::default();
        let call = Call::of_rows(now, rows, &layout.value_columns).map_err(|error| fatal(&error))?;
        operator.process(layout, port as usize, &call, &mut answer).map_err(|error| fatal(&error))?;
        Ok(answer.into_turn())
    }

    /// Handles due timers.
    ///
    /// # Errors
    /// The call is malformed.
    pub fn on_timers(&mut self, now: Moment, due: &DueTimers) -> Result<Turn, Failure> {
        let Self { operator, layout } = self;
        let mut answer = Answer::default();
        let call = Call::of_timers(now, due, &layout.value_columns).map_err(|error| fatal(&error))?;
        operator.on_timers(layout, due.timer.as_chunks().0, &call, &mut answer).map_err(|error| fatal(&error))?;
        Ok(answer.into_turn())
    }
}

fn fatal(malformed: &Malformed) -> Failure {
    Failure::Fatal(format!("the host sent a malformed call: {}", malformed.0))
}
