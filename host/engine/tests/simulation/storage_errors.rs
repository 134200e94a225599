//! Storage that is full, or broken, from one write on: the job says so and ends, nothing that was decided is lost, and it goes on when there is room
//! again. Every write of a small durable job is the first that fails once: uploads, manifests, deletions, claims and commits.

use millstream_storage::faults::{Faults, Random, WriteFault};

use crate::{
    clock::WallClock,
    jobs::{Job, Kind},
    lives::{Ended, Simulation},
    world::{Troubles, World},
};

const SEED: u64 = 11;

#[test]
fn no_space_at_any_write_is_named_and_the_job_goes_on_when_there_is_room() {
    fails_at_every_write(WriteFault::NoSpace, "no storage space");
}

#[test]
fn a_broken_device_at_any_write_is_named_and_the_job_goes_on_when_it_is_repaired() {
    fails_at_every_write(WriteFault::Device, "Input/output error");
}

fn fails_at_every_write(fault: WriteFault, named: &str) {
    for kind in [Kind::Windows, Kind::Ordered] {
        let untroubled = simulation(kind, Faults::from_write(u64::MAX, fault));
        assert_eq!(untroubled.live(true), Ended::Finished);
        let writes = untroubled.faults.writes();
        assert!(writes > 20, "{writes} writes are no durable job");
        let mut survived = 0;
        for first in 1..=writes {
            survived += u64::from(fails_from(kind, first, fault, named));
        }
        println!(
            "{kind:?}, {fault:?}: each of {writes} writes was the first to fail; {survived} times only what could wait was left to do"
        );
        assert!(survived < writes / 4, "a storage that fails is an error, not a log line");
    }
}

/// Every write from the `first` on fails, then the storage is repaired. Whether the job could finish all the same.
fn fails_from(kind: Kind, first: u64, fault: WriteFault, named: &str) -> bool {
    let simulation = simulation(kind, Faults::from_write(first, fault));
    let ended = simulation.live(true);
    let has_finished = match &ended {
        // The last checkpoint was committed; only removals were left, which are tried again by the next run.
        Ended::Finished => true,
        Ended::Failed(error) => {
            assert!(error.contains(named), "{kind:?}, write {first}: {error}");
            false
        }
        other => panic!("{kind:?}, write {first}: {other:?}"),
    };
    simulation.check_durable();
    simulation.faults.repair();
    let next = simulation.live(true);
    assert_eq!(next, if has_finished { Ended::FinishedBefore } else { Ended::Finished }, "{kind:?}, write {first}");
    simulation.check_durable();
    simulation.check_results();
    assert_eq!(simulation.world.broken(), [""; 0], "{kind:?}, write {first}");
    has_finished
}

fn simulation(kind: Kind, faults: std::sync::Arc<Faults>) -> Simulation {
    let world = World::new(SEED, Troubles::NONE, WallClock::Right);
    world.begin(true);
    Simulation::new(world, Job::new(kind, &mut Random::seeded(SEED)), faults)
}
