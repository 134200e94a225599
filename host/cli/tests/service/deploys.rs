//! Jobs that come and go: of a deleted job nothing stays, in the process or on disk. In its long form five thousand of them.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    harness::{Service, directory},
    runners::runner,
};

/// Open at one moment and not at another: connections, threads that do file work.
const PASSING: usize = 8;
/// The audit keeps each deploy, as text; the journals of catalogue and audit grow until they are written anew.
const BYTES_EACH: u64 = 8 << 10;
const BYTES_BETWEEN_REWRITES: u64 = 8 << 20;
/// What the allocator may keep of memory that is free: a pool of 8 MiB for each processor and then some.
const POOLS_BYTES: u64 = 32 << 20;

/// What a service holds, with its runner.
#[derive(Debug)]
struct Holds {
    descriptors: usize,
    threads: usize,
    resident_bytes: u64,
    disk_bytes: u64,
}

impl Holds {
    fn of(service: &Service) -> Self {
        let processes = [service.id(), runner(service)];
        let entries = |what: &str| {
            let counted = |process: &u32| fs::read_dir(format!("/proc/{process}/{what}")).expect("it runs").count();
            processes.iter().map(counted).sum()
        };
        Self {
            descriptors: entries("fd"),
            threads: entries("task"),
            resident_bytes: processes.iter().copied().map(resident_bytes).sum(),
            disk_bytes: bytes_below(service.directory()),
        }
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        // It has gone meanwhile.
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

fn deploy_and_delete(service: &Service, name: &str) {
    service.submit(name);
    assert_eq!(service.tail(name, "counts", 1).len(), 1);
    service.post(&format!("/v1/jobs/{name}/stop"), &json!({})).expect(200);
    service.delete(&format!("/v1/jobs/{name}")).expect(204);
}

#[test]
fn deploys_leave_nothing_behind() {
    let deploys = if std::env::var_os("MILLSTREAM_SOAK").is_some() { 5_000 } else { 100 };
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    // The allocator's pools grow with the first jobs that happen to run beside each other.
    let warm = deploys * 2 / 5;
    (0..warm).for_each(|number| deploy_and_delete(&service, &format!("job{number}")));
    let before = Holds::of(&service);
    (warm..deploys).for_each(|number| deploy_and_delete(&service, &format!("job{number}")));
    let after = Holds::of(&service);
    println!("deploys: {before:?} after {warm}, {after:?} after {deploys}");

    let kept = u64::try_from(deploys).expect("a count") * BYTES_EACH + BYTES_BETWEEN_REWRITES;
    assert!(after.descriptors <= before.descriptors + PASSING, "{before:?} {after:?}");
    assert!(after.threads <= before.threads + PASSING, "{before:?} {after:?}");
    assert!(after.resident_bytes <= before.resident_bytes + kept + POOLS_BYTES, "{before:?} {after:?}");
    assert!(after.disk_bytes <= before.disk_bytes + kept, "{before:?} {after:?}");
    let left: Vec<_> = fs::read_dir(directory.path().join("jobs/local")).expect("jobs ran").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
