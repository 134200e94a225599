//! The job files of this group: numbered rows, dealt out to keys in turn, through a component that numbers the rows of each key.
//!
//! The `n`th row of key `k` has the value `k + (n - 1) * KEYS`. So a row shows by itself whether the component has seen everything before it, once and in
//! order: `number = value / KEYS + 1`. Rows of which that is not true are counted by `wrong`.

/// A job without end.
pub struct Numbered<'a> {
    pub name: &'a str,
    /// Rows per second; none: as fast as they are taken.
    pub rate: Option<u64>,
    pub keys: u64,
    /// Settings of the job, one line each.
    pub settings: &'a str,
    /// Where the rows go.
    pub sink: &'a str,
}

impl<'a> Numbered<'a> {
    /// A job whose rows go nowhere.
    pub fn new(name: &'a str, rate: u64, keys: u64) -> Self {
        Self { name, rate: Some(rate), keys, settings: "", sink: "blackhole: {}" }
    }

    /// The job file.
    pub fn file(&self) -> String {
        let Self { name, keys, settings, sink, .. } = self;
        let rate = self.rate.map(|rate| format!("rate: {rate}")).unwrap_or_default();
        format!(
            "job: {name}
parallelism: 1
{settings}
sources:
  numbers:
    sequence: {{ {rate} }}
operators:
  keys:
    input: numbers
    compute: {{ key: value % {keys} }}
  tally:
    input: keys
    key-by: [key]
    component: tally:v1
  wrong:
    input: tally
    filter: number <> value / {keys} + 1
sinks:
  results:
    input: tally
    {sink}
  wrong-ones:
    input: wrong
    blackhole: {{}}
"
        )
    }
}
