//! Merges what several inputs of one operator say about time, ends and barriers. Pure: no channel, no clock.
//!
//! An input that has passed a barrier is *blocked* until every other input has passed it too or has ended; a finished input counts as
//! aligned.

use millstream_model::{
    Watermark,
    time::{Progress, WatermarkMerge},
};

use crate::element::Barrier;

/// The merged view of all inputs of one operator in one subtask.
#[derive(Debug)]
pub(super) struct Aligner {
    merge: WatermarkMerge,
    ended: Vec<bool>,
    aligning: Option<(Barrier, Vec<bool>)>,
}

impl Aligner {
    /// Of `inputs` inputs that have said nothing yet.
    pub(super) fn new(inputs: usize) -> Self {
        Self { merge: WatermarkMerge::new(inputs), ended: vec![false; inputs], aligning: None }
    }

    /// The same, going on from a run that had come to `floor`.
    pub(super) fn with_floor(self, floor: Option<Watermark>) -> Self {
        Self { merge: self.merge.with_floor(floor), ..self }
    }

    /// The merged watermark.
    pub(super) fn watermark(&self) -> Option<Watermark> {
        self.merge.current()
    }

    /// Whether every input has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.merge.is_ended()
    }

    /// Whether `input` waits for others to reach the barrier it has passed.
    pub(super) fn is_blocked(&self, input: usize) -> bool {
        self.aligning.as_ref().is_some_and(|(_, passed)| passed[input])
    }

    /// The barrier that some inputs have passed, and those that have not.
    pub(super) fn missing(&self) -> Option<(Barrier, Vec<usize>)> {
        let (barrier, passed) = self.aligning.as_ref()?;
        let missing = (0..passed.len()).filter(|&input| !passed[input] && !self.ended[input]).collect();
        Some((*barrier, missing))
    }

    /// The input that holds the merged watermark.
    pub(super) fn holding_input(&self) -> Option<usize> {
        self.merge.holding_input()
    }

    pub(super) fn on_row(&mut self, input: usize) {
        self.merge.on_row(input);
    }

    pub(super) fn on_watermark(&mut self, input: usize, watermark: Watermark) -> Option<Progress> {
        self.merge.on_watermark(input, watermark)
    }

    pub(super) fn on_idle(&mut self, input: usize) -> Option<Progress> {
        self.merge.on_idle(input)
    }

    /// What the end of `input` means for time, and the barrier that it completes.
    pub(super) fn on_end(&mut self, input: usize) -> (Option<Progress>, Option<Barrier>) {
        self.ended[input] = true;
        (self.merge.on_end(input), self.completed())
    }

    /// The barrier, once every input has passed it.
    pub(super) fn on_barrier(&mut self, input: usize, barrier: Barrier) -> Option<Barrier> {
        match &mut self.aligning {
            Some((current, passed)) if current.checkpoint == barrier.checkpoint => passed[input] = true,
            // A newer barrier replaces one that was given up; an input cannot be ahead of it, since it is blocked.
            _ => {
                let mut passed = vec![false; self.ended.len()];
                passed[input] = true;
                self.aligning = Some((barrier, passed));
            }
        }
        self.completed()
    }

    fn completed(&mut self) -> Option<Barrier> {
        let (barrier, passed) = self.aligning.as_ref()?;
        let all = passed.iter().zip(&self.ended).all(|(passed, ended)| *passed || *ended);
        let barrier = all.then_some(*barrier)?;
        self.aligning = None;
        Some(barrier)
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::ids::CheckpointId;

    use super::*;

    const B1: Barrier = Barrier { checkpoint: CheckpointId(1) };

    #[test]
    fn a_barrier_passes_when_every_input_has_passed_it() {
        let mut aligner = Aligner::new(2);
        assert_eq!(aligner.on_barrier(0, B1), None);
        assert!(aligner.is_blocked(0) && !aligner.is_blocked(1));
        assert_eq!(aligner.on_barrier(1, B1), Some(B1));
        assert!(!aligner.is_blocked(0));
    }

    #[test]
    fn a_finished_input_counts_as_aligned() {
        let mut aligner = Aligner::new(2);
        aligner.on_end(0);
        assert_eq!(aligner.on_barrier(1, B1), Some(B1));
    }

    #[test]
    fn the_end_of_the_last_missing_input_completes_the_barrier() {
        let mut aligner = Aligner::new(2);
        aligner.on_barrier(0, B1);
        assert_eq!(aligner.on_end(1).1, Some(B1));
    }
}
