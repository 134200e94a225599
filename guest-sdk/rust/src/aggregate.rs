//! User aggregates for windows: `#[millstream::aggregate]` on the `impl` of an accumulator.
//!
//! An accumulator is a state that travels with the batch: one per group, null if the group is new.

use crate::{
    argument::{Columns, Reads},
    bindings::{
        Column, Field,
        aggregate::exports::millstream::operator::aggregate::{Batch, Descriptor, Signature},
    },
    call::Call,
    migration,
    operator::About,
    panics,
    part::State,
    value::{ColumnBuilder, Malformed, ReadValue, Value, finish_column, read_column},
};

/// An aggregate, implemented by `#[millstream::aggregate]` on its accumulator.
pub trait Aggregate: State + Default + 'static {
    /// Static facts.
    const ABOUT: About;
    /// Whether it has `merge`.
    const MERGES: bool;
    /// What it is opened with.
    type Settings: 'static;
    /// Its result.
    type Output: Value;
    /// JSON Schema of the settings; empty: it takes none.
    fn settings_schema() -> String;
    /// The settings.
    ///
    /// # Errors
    /// They do not fit.
    fn settings(settings: &str) -> Result<Self::Settings, String>;
    /// Declares what it reads.
    fn declare(reads: &mut Reads);
    /// Adds each row of the call to its group's accumulator.
    ///
    /// # Errors
    /// The call is malformed.
    fn accumulate_all<'a>(
        settings: &Self::Settings,
        call: &Call<'a>,
        columns: Columns<'_, 'a>,
        groups: &[[u8; 4]],
        into: &mut [Self],
    ) -> Result<(), Malformed>;
    /// Merges `other` into this accumulator; never called unless `MERGES`.
    fn merge_one(&mut self, settings: &Self::Settings, other: Self);
    /// The result.
    fn finish_one(&self, settings: &Self::Settings) -> Self::Output;
}

/// The answer to `describe`.
pub fn describe<A: Aggregate>() -> Descriptor {
    Descriptor {
        name: A::ABOUT.name.into(),
        version: A::ABOUT.version.into(),
        summary: A::ABOUT.summary.into(),
        settings_schema: A::settings_schema(),
        hints: vec![("sdk".into(), concat!("rust ", env!("CARGO_PKG_VERSION")).into())],
    }
}

/// The answer to `plan`. Columns are matched to parameters by name if every name is found, else by position.
///
/// # Errors
/// The settings do not fit, or there are not as many columns as parameters.
pub fn plan<A: Aggregate>(settings: &str, fields: &[Field]) -> Result<Signature, String> {
    A::settings(settings)?;
    let mut reads = Reads::default();
    A::declare(&mut reads);
    let all_named = reads.fields.iter().all(|read| fields.iter().any(|field| field.name == read.name));
    if !all_named && fields.len() != reads.fields.len() {
        let names: Vec<_> = reads.fields.iter().map(|field| field.name.as_str()).collect();
        return Err(format!("this aggregate takes {} columns ({}), not {}", names.len(), names.join(", "), fields.len()));
    }
    if !all_named {
        reads.fields.iter_mut().zip(fields).for_each(|(read, field)| read.name.clone_from(&field.name));
    }
    Ok(Signature {
        reads: reads.fields,
        accumulator_type: A::data_type(),
        version: A::VERSION,
        output: Field { name: A::ABOUT.name.into(), data_type: A::Output::data_type(), nullable: A::Output::NULLABLE },
        merges: A::MERGES,
        hints: Vec::new(),
    })
}

/// The answer to `migrate`: the accumulator is the only state of an aggregate, whatever its job calls it.
///
/// # Errors
/// There is no way from these accumulators to the present type, or one of them is impossible.
pub fn migrate<A: Aggregate>(state: &str, from: (u32, &str), accumulators: &Column) -> Result<Column, String> {
    migration::migrate(state, A::MIGRATIONS, from, accumulators)
}

/// One opened aggregate.
pub struct Instance<A: Aggregate> {
    settings: A::Settings,
    order: Vec<usize>,
}

fn malformed(error: Malformed) -> String {
    format!("the host sent a malformed call: {}", error.0)
}

/// Accumulators of a column; new groups start with the default.
fn accumulators<A: Aggregate>(column: &Column) -> Result<Vec<A>, Malformed> {
    let length = column.length as usize;
    let reader = read_column::<Option<A>>(column, length)?;
    Ok((0..length).map(|group| <Option<A> as ReadValue<'_>>::get(&reader, group).unwrap_or_default()).collect())
}

fn column_of<'v, T: Value + 'v>(values: impl ExactSizeIterator<Item = &'v T>) -> Column {
    let length = values.len();
    let mut builder = T::Builder::default();
    builder.reserve(length);
    values.for_each(|value| value.append(&mut builder));
    finish_column(builder, length)
}

/// Numbers per row, checked to be below `limit`.
fn numbers(bytes: &[u8], length: usize, limit: usize) -> Result<&[[u8; 4]], Malformed> {
    let numbers = bytes.as_chunks::<4>().0;
    let fits = numbers.len() == length && numbers.iter().all(|number| (u32::from_le_bytes(*number) as usize) < limit);
    if fits { Ok(numbers) } else { Err(Malformed("a row without a group")) }
}

impl<A: Aggregate> Instance<A> {
    /// Opens an aggregate.
    ///
    /// # Errors
    /// The settings do not fit.
    pub fn open(settings: &str, _fields: &[Field]) -> Result<Self, String> {
        let mut reads = Reads::default();
        A::declare(&mut reads);
        Ok(Self { settings: A::settings(settings)?, order: reads.order })
    }

    /// The accumulators with the batch added.
    ///
    /// # Errors
    /// The call is malformed.
    pub fn accumulate(&self, batch: &Batch, column: &Column) -> Result<Column, String> {
        let mut into = accumulators::<A>(column).map_err(malformed)?;
        let groups = numbers(&batch.group_of_row, batch.length as usize, into.len()).map_err(malformed)?;
        let call = Call::of_columns(batch.length as usize, &batch.columns);
        A::accumulate_all(&self.settings, &call, Columns::new(&call, &self.order), groups, &mut into).map_err(malformed)?;
        Ok(column_of(into.iter()))
    }

    /// The accumulators `into` with `other` merged.
    ///
    /// # Errors
    /// The call is malformed.
    pub fn merge(&self, into: &Column, other: &Column, into_of_other: &[u8]) -> Result<Column, String> {
        let mut merged = accumulators::<A>(into).map_err(malformed)?;
        let others = accumulators::<A>(other).map_err(malformed)?;
        let targets = numbers(into_of_other, others.len(), merged.len()).map_err(malformed)?;
        for (row, (other, target)) in others.into_iter().zip(targets).enumerate() {
            panics::enter(row);
            merged[u32::from_le_bytes(*target) as usize].merge_one(&self.settings, other);
        }
        Ok(column_of(merged.iter()))
    }

    /// The results.
    ///
    /// # Errors
    /// The call is malformed.
    pub fn finish(&self, column: &Column) -> Result<Column, String> {
        let accumulators = accumulators::<A>(column).map_err(malformed)?;
        let results: Vec<A::Output> = accumulators.iter().map(|accumulator| accumulator.finish_one(&self.settings)).collect();
        Ok(column_of(results.iter()))
    }
}
