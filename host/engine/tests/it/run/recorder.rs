//! An operator that writes down everything it is told, and misbehaves on demand.

use std::{
    any::Any,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millstream_engine::{
    element::Barrier,
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
};
use millstream_model::{Batch, StreamType, Watermark};

/// What the operator was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many rows on this input.
    Rows(usize, usize),
    Watermark(Watermark),
    Barrier(u64),
    End,
}

/// Passes rows on and remembers what it saw.
#[derive(Clone)]
pub struct Recorder {
    outputs: Vec<(String, StreamType)>,
    told: Arc<Mutex<Vec<Told>>>,
    pub uses_watermarks: bool,
    pub fails_at_row: Option<i64>,
    pub panics: bool,
}

impl Recorder {
    pub fn new(stream: StreamType) -> Self {
        Self { outputs: vec![("output".into(), stream)], told: Arc::default(), uses_watermarks: true, fails_at_row: None, panics: false }
    }

    /// Everything so far; rows of one input that followed each other are one entry.
    pub fn told(&self) -> Vec<Told> {
        let mut joined: Vec<Told> = Vec::new();
        for told in self.told.lock().expect("no panic inside").iter().copied() {
            match (joined.last_mut(), told) {
                (Some(Told::Rows(before, count)), Told::Rows(input, more)) if *before == input => *count += more,
                _ => joined.push(told),
            }
        }
        joined
    }

    /// As it was told, batch by batch.
    pub fn told_exactly(&self) -> Vec<Told> {
        self.told.lock().expect("no panic inside").clone()
    }

    fn note(&self, told: Told) {
        self.told.lock().expect("no panic inside").push(told);
    }
}

#[async_trait]
impl OperatorPlan for Recorder {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn uses_watermarks(&self) -> bool {
        self.uses_watermarks
    }

    async fn create(&self, _context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        Ok(Box::new(self.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[async_trait]
impl Operator for Recorder {
    async fn on_batch(&mut self, input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        assert!(!self.panics, "told to panic");
        self.note(Told::Rows(input, batch.num_rows()));
        if let Some(row) = self.fails_at_row
            && super::values(std::slice::from_ref(&batch)).iter().any(|values| values[0] == row)
        {
            return Err(OperatorError::user("told to fail"));
        }
        out.emit(0, batch);
        Ok(())
    }

    async fn on_watermark(&mut self, now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        self.note(Told::Watermark(now.watermark.expect("it advanced")));
        Ok(())
    }

    async fn on_barrier(&mut self, barrier: Barrier) -> Result<serde_json::Value, OperatorError> {
        self.note(Told::Barrier(barrier.checkpoint.0));
        Ok(serde_json::Value::Null)
    }

    async fn on_end(&mut self, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        self.note(Told::End);
        Ok(())
    }
}
