//! Value states: one value per key, which travels with the batch.
//!
//! All keys of a call are decoded at once, in one dense loop, since each has at least one row. At the end a value is written only if it
//! differs from what came in.

use super::{Part, PartOptions, Ttl};
use crate::{
    argument::Row,
    bindings::exports::ValueUpdate,
    call::{Answer, At, Call},
    migration::Migration,
    operator::{Declaration, StateKind},
    value::{self, BitBuilder, ColumnBuilder, Malformed, ReadValue, Value, column_of_one, read_column},
};

/// A type that can be kept per key: `#[derive(State)]`, a row, or a single number, text or the like.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state",
    label = "not a state",
    note = "put #[derive(millstream::State, Default)] on the struct"
)]
pub trait State: for<'a> ReadValue<'a> {
    /// The version of the type; raise it when the type changes.
    const VERSION: u32 = 1;
    /// When values are forgotten; none: never.
    const TTL: Option<Ttl> = None;
    /// The ways from older types that no rule of the host can read as this one.
    const MIGRATIONS: &'static [Migration] = &[];
}

impl<T: Row + for<'a> ReadValue<'a>> State for T {}

macro_rules! states {
    ($([$($generics:tt)*] $type:ty;)*) => {$( impl<$($generics)*> State for $type where $type: for<'a> ReadValue<'a> {} )*};
}

states! {
    [] bool; [] i8; [] i16; [] i32; [] i64; [] u8; [] u16; [] u32; [] u64; [] f32; [] f64;
    [] String; [const N: usize] [u8; N];
    [T] value::Large<T>; [T] Vec<T>; [T, const N: usize] value::FixedList<T, N>; [K, V] std::collections::BTreeMap<K, V>;
    [const P: u8, const S: i8] value::Decimal<P, S>;
    [U: value::Unit, Z: value::Zone] value::Timestamp<U, Z>; [U: value::Unit] value::Duration<U>; [U: value::TimeOfDayUnit] value::Time<U>;
    [] value::Date; [] value::Date64;
}

/// The values of all keys of a call.
pub struct ValueSlots<S> {
    values: Vec<S>,
    /// The value of the current row's key before the row.
    saved: Option<S>,
}

/// `&mut T`: a key that has no value starts with the default.
impl<S: State + Default> Part for S {
    type Slots = ValueSlots<S>;
    const MIGRATES: bool = !S::MIGRATIONS.is_empty();

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.state::<S>(name, StateKind::Value, None, options)
    }

    fn begin(call: &Call<'_>, index: usize) -> Result<ValueSlots<S>, Malformed> {
        let keys = call.key_count();
        let reader = read_column::<Option<S>>(call.state(index)?, keys)?;
        let values = (0..keys).map(|key| <Option<S> as ReadValue<'_>>::get(&reader, key).unwrap_or_default()).collect();
        Ok(ValueSlots { values, saved: None })
    }

    #[inline(always)]
    fn enter(slots: &mut ValueSlots<S>, at: At, undoable: bool) {
        if undoable {
            slots.saved = Some(slots.values[at.key].duplicate());
        }
    }

    #[inline(always)]
    fn handle(slots: &mut ValueSlots<S>, at: At) -> &mut Self {
        &mut slots.values[at.key]
    }

    fn undo(slots: &mut ValueSlots<S>, at: At) {
        if let Some(saved) = slots.saved.take() {
            slots.values[at.key] = saved;
        }
    }

    fn finish(slots: ValueSlots<S>, index: usize, call: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        let reader = read_column::<Option<S>>(call.state(index)?, slots.values.len())?;
        let default_column = column_of_one(&S::default());
        let default = read_column::<S>(&default_column, 1)?;
        let mut writer = Writer::<S>::new(slots.values.len());
        for (key, value) in slots.values.iter().enumerate() {
            // An absent value that is still the default stays absent.
            let unchanged = reader.same_some(value, key).unwrap_or_else(|| value.same(&default, 0));
            if !unchanged {
                writer.write(key, Some(value));
            }
        }
        writer.finish(index, answer);
        Ok(())
    }
}

/// The values of all keys of a call, absent ones too.
pub struct OptionSlots<S> {
    values: Vec<Option<S>>,
    saved: Option<Option<S>>,
}

/// `&mut Option<T>`: absent is `None`, and setting it to `None` deletes the value.
impl<S: State> Part for Option<S> {
    type Slots = OptionSlots<S>;
    const MIGRATES: bool = !S::MIGRATIONS.is_empty();

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.state::<S>(name, StateKind::Value, None, options)
    }

    fn begin(call: &Call<'_>, index: usize) -> Result<OptionSlots<S>, Malformed> {
        let keys = call.key_count();
        let reader = read_column::<Option<S>>(call.state(index)?, keys)?;
        Ok(OptionSlots { values: (0..keys).map(|key| <Option<S> as ReadValue<'_>>::get(&reader, key)).collect(), saved: None })
    }

    #[inline(always)]
    fn enter(slots: &mut OptionSlots<S>, at: At, undoable: bool) {
        if undoable {
            slots.saved = Some(slots.values[at.key].duplicate());
        }
    }

    #[inline(always)]
    fn handle(slots: &mut OptionSlots<S>, at: At) -> &mut Self {
        &mut slots.values[at.key]
    }

    fn undo(slots: &mut OptionSlots<S>, at: At) {
        if let Some(saved) = slots.saved.take() {
            slots.values[at.key] = saved;
        }
    }

    fn finish(slots: OptionSlots<S>, index: usize, call: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        let reader = read_column::<Option<S>>(call.state(index)?, slots.values.len())?;
        let mut writer = Writer::<S>::new(slots.values.len());
        for (key, value) in slots.values.iter().enumerate() {
            if !value.same(&reader, key) {
                writer.write(key, value.as_ref());
            }
        }
        writer.finish(index, answer);
        Ok(())
    }
}

/// Collects the values that changed.
struct Writer<S: State> {
    changed: BitBuilder,
    values: <Option<S> as Value>::Builder,
    count: usize,
}

impl<S: State> Writer<S> {
    fn new(keys: usize) -> Self {
        let mut values = <Option<S> as Value>::Builder::default();
        values.reserve(keys);
        Self { changed: BitBuilder::filled(keys, false), values, count: 0 }
    }

    #[inline]
    fn write(&mut self, key: usize, value: Option<&S>) {
        self.changed.set(key);
        self.values.append_option(value);
        self.count += 1;
    }

    fn finish(self, index: usize, answer: &mut Answer) {
        if self.count > 0 {
            let values = value::finish_column(self.values, self.count);
            answer.turn.updates.values.push(ValueUpdate { state: index as u32, changed: self.changed.into_bytes(), values });
        }
    }
}
