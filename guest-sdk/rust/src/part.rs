//! What a handler takes as `&mut`: outputs, state and timers.
//!
//! The name of the parameter is the name of the output, state or timer, with `-` for `_`. Handlers that take the same name share it.
//! Per call a part makes its *slots* (values of all keys, rows of all outputs), hands out one place of them per row, and at the end
//! writes what changed into the answer. Where a handler may reject its row, every part remembers enough to undo that row.
//!
//! State without a key is refused when the operator is compiled (so are timers that nothing handles, and borrowed state):
//! ```compile_fail
//! # use millstream::{Out, Row};
//! # #[derive(Row)]
//! # struct Count { count: u64 }
//! #[millstream::operator] // error: state and timers are kept per key: write #[millstream::operator(keyed)]
//! fn count(word: &str, seen: &mut u64, out: &mut Out<Count>) {}
//! ```
//! and so is what cannot be state at all:
//! ```compile_fail
//! # use millstream::{Out, Row};
//! # #[derive(Row)]
//! # struct Count { count: u64 }
//! #[millstream::operator(keyed)] // error: an operator cannot take `&mut HashMap<…>`
//! fn count(word: &str, seen: &mut std::collections::HashMap<String, u64>, out: &mut Out<Count>) {}
//! ```

mod list;
mod map;
mod out;
mod state;
mod timer;

pub use list::ListState;
pub use map::MapState;
pub use out::{Changelog, Changes, Inherit, Mode, Out, Timed, TimedChangelog, TimedChanges, TimedOut};
pub use state::{OptionSlots, State, ValueSlots};
pub use timer::{EventTimer, ProcessingTimer, Timer, TimerClock};

use crate::{
    call::{Answer, At, Call},
    operator::Declaration,
    value::Malformed,
};

/// What the macros found beside a parameter: `#[state(version = 2)]`, `#[output(keep)]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartOptions {
    /// The name to use instead of the parameter's.
    pub name: Option<&'static str>,
    /// Whether the output keeps the columns of the input.
    pub keep: bool,
    /// The version of the state's type, if not the type's own.
    pub version: Option<u32>,
    /// Time to live of the state in ms, if not the type's own.
    pub ttl: Option<Ttl>,
}

/// When a value of a state is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// How long after its last refresh it is kept, in ms.
    pub ms: u64,
    /// Whether the host's clock counts instead of the watermark.
    pub processing_time: bool,
    /// Whether reading refreshes it too.
    pub on_read: bool,
}

/// A parameter taken as `&mut`.
#[diagnostic::on_unimplemented(
    message = "an operator cannot take `&mut {Self}`",
    label = "neither an output, nor state, nor a timer",
    note = "an output is `&mut Out<T>`; state is `&mut T` where T has #[derive(millstream::State, Default)], `&mut Option<T>`, `&mut MapState<K, V>` or `&mut ListState<T>`",
    note = "a timer is `&mut EventTimer` or `&mut ProcessingTimer`"
)]
pub trait Part: Sized {
    /// What one call needs.
    type Slots;
    /// Whether it is a timer, and so needs a handler.
    const IS_TIMER: bool = false;
    /// Whether it is kept per key, and so needs a keyed stream.
    const NEEDS_KEY: bool = true;
    /// Whether it is state that migrates values of older versions.
    const MIGRATES: bool = false;
    /// Declares it and gives its index among its kind.
    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize;
    /// The slots for one call.
    ///
    /// # Errors
    /// The call lacks its values.
    fn begin(call: &Call<'_>, index: usize) -> Result<Self::Slots, Malformed>;
    /// A row begins. `undoable`: it may be undone.
    fn enter(slots: &mut Self::Slots, at: At, undoable: bool);
    /// What the handler sees of it at this row.
    fn handle(slots: &mut Self::Slots, at: At) -> &mut Self;
    /// Undoes what happened since `enter`.
    fn undo(slots: &mut Self::Slots, at: At);
    /// Writes what changed.
    ///
    /// # Errors
    /// The call's values are malformed.
    fn finish(slots: Self::Slots, index: usize, call: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed>;
}

/// Numbers of keys or rows, as the contract packs them.
pub(crate) fn pack_u32(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    numbers.into_iter().map(u32::to_le_bytes).collect::<Vec<_>>().into_flattened()
}
