//! The hostile battery: a stranger plays every line of the list (`tests/hostile`) against a service that it shares with a quiet neighbour.
//!
//! After each line the service and the runners are the processes that they were, the neighbour has not been interrupted, and its rows go on; and the
//! error of the line has named its cause. How much the neighbour notices is measured by `make bench ONLY=neighbour`; here its rows only have to come,
//! since other tests share the machine.

mod battery;
#[expect(dead_code, reason = "tests of the service have it too, and use all of it")]
#[path = "../service/harness.rs"]
mod harness;
mod own;

use std::{fs, path::Path};

use millstream_hostile::{
    lines::{self, Line},
    players::{Player, players},
};

use crate::battery::Battery;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn every_piece_of_the_list_is_a_line_with_players() {
    assert_eq!(lines::unclaimed(), "");
    for line in Line::ALL {
        let players = players(*line);
        assert!(!players.is_empty(), "nobody plays {line:?}");
        for player in players {
            if let Player::Elsewhere(file, test) = player {
                let source = fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{line:?}: {file}: {error}"));
                let (before, _) = source.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("{line:?}: {file} has no {test}"));
                let attributes = before.rsplit_once("}\n").map_or(before, |(_, attributes)| attributes);
                assert!(attributes.contains("#[test]") && !attributes.contains("#[ignore"), "{line:?}: {test} is no test that runs");
            }
        }
    }
}

#[test]
fn every_group_of_the_list_is_played() {
    let tests = include_str!("main.rs");
    for line in Line::ALL {
        assert!(tests.contains(&format!("Battery::start().play(\"{}\")", line.group())), "{line:?}");
    }
}

#[test]
fn hostile_uploads_are_refused_by_their_cause_and_nobody_notices() {
    Battery::start().play("Upload");
}

#[test]
fn guests_that_take_cpu_time_are_stopped_and_nobody_notices() {
    Battery::start().play("CPU");
}

#[test]
fn guests_that_take_memory_are_stopped_and_nobody_notices() {
    Battery::start().play("Memory");
}

#[test]
fn guests_that_lie_at_the_boundary_are_refused_and_nobody_notices() {
    Battery::start().play("Boundary");
}

#[test]
fn guests_that_use_the_host_without_measure_are_limited_and_nobody_notices() {
    Battery::start().play("Host API");
}

#[test]
fn jobs_that_live_badly_are_contained_and_nobody_notices() {
    Battery::start().play("Lifecycle");
}

#[test]
fn the_api_is_abused_and_nobody_notices() {
    Battery::start().play("API");
}
