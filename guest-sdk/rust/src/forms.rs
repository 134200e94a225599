//! The stateless forms: filter, map and flat-map as loops over a batch, into which the user's function is inlined.

use crate::{
    argument::Row,
    bindings::exports::Output,
    call::{Answer, Call, Reject},
    panics,
    part::{Inherit, Out},
    value::Value,
};

/// What a filter returns: `bool`, or `Result<bool, Reject>`.
pub trait Verdict {
    /// Whether the row stays.
    ///
    /// # Errors
    /// The row is rejected.
    fn into_result(self) -> Result<bool, Reject>;
}

impl Verdict for bool {
    #[inline(always)]
    fn into_result(self) -> Result<bool, Reject> {
        Ok(self)
    }
}

impl<E: Into<Reject>> Verdict for Result<bool, E> {
    #[inline(always)]
    fn into_result(self) -> Result<bool, Reject> {
        self.map_err(Into::into)
    }
}

/// What a map returns: a row, or `Option` (none: the row is dropped), `Result<_, Reject>`, or `Result<Option<_>, Reject>` of one.
pub trait Mapped {
    /// The type of the row.
    type Row: Value;
    /// The new row, if any.
    ///
    /// # Errors
    /// The row is rejected.
    fn into_result(self) -> Result<Option<Self::Row>, Reject>;
}

impl<T: Row> Mapped for T {
    type Row = T;

    #[inline(always)]
    fn into_result(self) -> Result<Option<T>, Reject> {
        Ok(Some(self))
    }
}

impl<T: Row> Mapped for Option<T> {
    type Row = T;

    #[inline(always)]
    fn into_result(self) -> Result<Option<T>, Reject> {
        Ok(self)
    }
}

impl<T: Mapped, E: Into<Reject>> Mapped for Result<T, E> {
    type Row = T::Row;

    #[inline(always)]
    fn into_result(self) -> Result<Option<T::Row>, Reject> {
        self.map_err(Into::into)?.into_result()
    }
}

/// Keeps the rows for which `keep` says so: the answer is their numbers.
#[inline]
pub fn filter<V: Verdict>(call: &Call<'_>, answer: &mut Answer, mut keep: impl FnMut(usize) -> V) {
    let mut kept = vec![[0_u8; 4]; call.length];
    let mut count = 0;
    for row in 0..call.length {
        panics::enter(row);
        match keep(row).into_result() {
            // Written always and counted if kept: no branch to mispredict.
            Ok(stays) => {
                kept[count] = (row as u32).to_le_bytes();
                count += usize::from(stays);
            }
            Err(reject) => answer.reject(row, reject),
        }
    }
    if count == 0 {
        return;
    }
    kept.truncate(if count == call.length { 0 } else { count });
    let output = Output {
        port: 0,
        from: kept.into_flattened(),
        length: count as u32,
        event_times: Vec::new(),
        changes: Vec::new(),
        columns: Vec::new(),
    };
    answer.turn.outputs.push(output);
    answer.pass_changes(call);
}

/// Maps each row to at most one.
#[inline]
pub fn map<T: Row, M: Mapped>(call: &Call<'_>, answer: &mut Answer, mut map: impl FnMut(usize) -> M)
where
    M::Row: Value<Builder = T::Builder>,
{
    let mut out = Out::<T, Inherit>::with_capacity(call.length);
    for row in 0..call.length {
        panics::enter(row);
        match map(row).into_result() {
            Ok(Some(mapped)) => {
                out.enter_row(row);
                out.append(&mapped);
            }
            Ok(None) => {}
            Err(reject) => answer.reject(row, reject),
        }
    }
    out.finish_output(0, call, answer);
    answer.pass_changes(call);
}
