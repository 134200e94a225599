//! Asks its standard library for everything that the host answers: clocks, randomness, arguments, environment, files, streams.
//!
//! Built for `wasm32-wasip2`, so that the standard library's own imports are what is tested.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use millstream::Row;

#[derive(Row)]
struct World {
    wall_ms: i64,
    slept_ms: i64,
    random: i64,
    arguments: i64,
    variables: i64,
    files: i64,
    input_bytes: i64,
}

/// What the world looks like from inside.
#[millstream::map(keep = false)]
#[expect(clippy::disallowed_methods, reason = "what the host answers to these is what is tested")]
fn worldly(number: i64) -> World {
    println!("to standard output");
    eprintln!("to standard error");
    let before = Instant::now();
    std::thread::sleep(Duration::from_secs(number.unsigned_abs()));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let map: HashMap<u32, u32> = (0..3).map(|key| (key, key)).collect();
    World {
        wall_ms: i64::try_from(wall).unwrap_or(-1),
        slept_ms: i64::try_from(before.elapsed().as_millis()).unwrap_or(-1),
        random: RandomState::new().hash_one(map.len()).cast_signed(),
        arguments: std::env::args().count().try_into().unwrap_or(-1),
        variables: std::env::vars().count().try_into().unwrap_or(-1),
        files: i64::from(std::fs::read("/etc/passwd").is_ok() || std::fs::read_dir(".").is_ok()),
        input_bytes: std::io::read_to_string(std::io::stdin()).map_or(-1, |text| text.len().try_into().unwrap_or(-1)),
    }
}
