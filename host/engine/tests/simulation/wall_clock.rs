//! A wall clock that is wrong, stands still, runs away or is set by years changes nothing about a job in event time: not a row, not a checkpoint, not
//! the order of a single step. And no timer in processing time is lost by it.

use millstream_storage::faults::{Faults, Random};

use crate::{
    clock::{TEN_YEARS_MS, WallClock},
    jobs::{Job, Kind},
    lives::{Ended, Simulation},
    world::{Troubles, World},
};

const WRONG: [WallClock; 5] =
    [WallClock::Frozen, WallClock::TenTimes, WallClock::Wrong(TEN_YEARS_MS), WallClock::Wrong(-TEN_YEARS_MS), WallClock::Jumping];

/// Everything that happens to an untroubled job under this clock; checked against arithmetic.
fn history(kind: Kind, seed: u64, wall_clock: WallClock) -> Vec<String> {
    let world = World::new(seed, Troubles::NONE, wall_clock);
    world.begin(true);
    let simulation = Simulation::new(world, Job::new(kind, &mut Random::seeded(seed)), Faults::from_write(u64::MAX, FAULT));
    assert_eq!(simulation.live(true), Ended::Finished, "{kind:?}, seed {seed}, {wall_clock:?}");
    simulation.check_results();
    simulation.check_durable();
    assert_eq!(simulation.world.broken(), [""; 0], "{kind:?}, seed {seed}, {wall_clock:?}");
    simulation.world.trace()
}

const FAULT: millstream_storage::faults::WriteFault = millstream_storage::faults::WriteFault::Device;

#[test]
fn a_wrong_wall_clock_changes_no_step_of_a_job_in_event_time() {
    for kind in [Kind::Windows, Kind::Joining, Kind::Timers] {
        for seed in 0..3 {
            let right = history(kind, seed, WallClock::Right);
            let checkpoints = right.iter().filter(|line| line.contains("commit") && line.ends_with("done")).count();
            assert!(checkpoints > 1, "checkpoints are taken while it runs:\n{}", right.join("\n"));
            for wrong in WRONG {
                let steps = history(kind, seed, wrong);
                let different = right.iter().zip(&steps).find(|(right, wrong)| right != wrong);
                assert_eq!(different, None, "{kind:?}, seed {seed}, {wrong:?}");
                assert_eq!(right.len(), steps.len(), "{kind:?}, seed {seed}, {wrong:?}");
            }
            println!("wall clock: {kind:?}, seed {seed}: {} steps, the same under {} wrong clocks", right.len(), WRONG.len());
        }
    }
}

#[test]
fn a_wrong_wall_clock_loses_no_timer_in_processing_time() {
    for wall_clock in [WallClock::Right].into_iter().chain(WRONG) {
        for seed in 0..3 {
            let steps = history(Kind::Reminders, seed, wall_clock).len();
            println!("wall clock: {wall_clock:?}, seed {seed}: {steps} steps, every timer fired once");
        }
    }
}
