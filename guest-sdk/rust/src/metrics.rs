//! Metrics of the user's own. They take effect when the call that adds to them is applied.
//!
//! ```
//! use millstream::metrics::Counter;
//! static RETRIES: Counter = Counter::new("retries", "1");
//! RETRIES.add(1.0);
//! ```

use std::cell::Cell;
use std::thread::LocalKey;

use crate::host::{self, Kind};

thread_local! {
    /// Numbers of the metrics defined so far, by address of their `static`. There are a handful.
    static DEFINED: Cell<Vec<(usize, u32)>> = const { Cell::new(Vec::new()) };
}

struct Metric {
    name: &'static str,
    unit: &'static str,
    kind: Kind,
}

impl Metric {
    fn add(&self, value: f64) {
        host::add_metric(self.number(&DEFINED), value);
    }

    /// Defines the metric on its first use in this instance.
    fn number(&self, defined: &'static LocalKey<Cell<Vec<(usize, u32)>>>) -> u32 {
        let address = std::ptr::from_ref(self).addr();
        let mut known = defined.take();
        let number = known.iter().find(|(other, _)| *other == address).map(|(_, number)| *number);
        let number = number.unwrap_or_else(|| {
            let number = host::define_metric(self.name, self.kind, self.unit);
            known.push((address, number));
            number
        });
        defined.set(known);
        number
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident $kind:ident $(#[$method_doc:meta])* $method:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(Metric);

        impl $name {
            /// A metric of this name and unit (UCUM: `1`, `ms`, `By`); put it into a `static`.
            pub const fn new(name: &'static str, unit: &'static str) -> Self {
                Self(Metric { name, unit, kind: Kind::$kind })
            }

            $(#[$method_doc])*
            pub fn $method(&self, value: f64) {
                self.0.add(value);
            }
        }
    )*};
}

metrics! {
    /// A sum that only grows.
    Counter Counter
    /// Adds to the sum.
    add;
    /// A value of this moment.
    Gauge Gauge
    /// Sets the value.
    set;
    /// A distribution.
    Histogram Histogram
    /// Records one observation.
    record;
}
