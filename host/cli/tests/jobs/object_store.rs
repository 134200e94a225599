//! Checkpoints in an object store: a server of its own that speaks the protocol of S3.

use std::{process::Command, time::Duration};

use millstream_objects::{ObjectStore, Service};

use crate::{
    binary::{Place, Random, ended, killed_after},
    counting,
    running::Running,
};

const ROWS: u64 = 40_000;
const RATE: u64 = 20_000;

/// A count whose checkpoints lie below the bucket.
fn place_with(storage: &str) -> Place {
    counting::place(Some(ROWS), RATE).set(format!("checkpoints={{\"interval\":\"50ms\",\"storage\":\"{storage}\"}}"))
}

/// The command, with what its store wants to hear.
fn with<'a>(store: &ObjectStore, command: &'a mut Command) -> &'a mut Command {
    command.envs(store.environment().iter().map(|(name, value)| (name, value)))
}

fn is_killed_and_goes_on(service: Service) {
    let store = ObjectStore::start(service);
    let place = place_with(&format!("{}/some/jobs", store.location()));
    let mut random = Random::seeded("object store", 11);
    for _ in 0..4 {
        let wait = random.time_up_to(Duration::from_millis(900));
        killed_after(with(&store, &mut place.run(&["--state", "state"])), wait);
    }
    ended(with(&store, &mut place.run(&["--state", "state"]))).with_code(0);
    counting::check(&place.join("out"), ROWS);
    ended(with(&store, &mut place.millstream(&["checkpoint", "verify", "state"]))).with_code(0);
    assert!(!place.join("state/checkpoints").exists(), "nothing of them lies in the job directory");
}

#[test]
fn a_job_whose_checkpoints_lie_in_s3_is_killed_and_goes_on() {
    is_killed_and_goes_on(Service::S3);
}

#[test]
fn a_job_whose_checkpoints_lie_in_google_cloud_storage_is_killed_and_goes_on() {
    is_killed_and_goes_on(Service::Google);
}

#[test]
fn a_job_whose_checkpoints_lie_in_azure_blob_storage_is_killed_and_goes_on() {
    is_killed_and_goes_on(Service::Azure);
}

/// Nothing is lost by it: with the right ones the job goes on.
#[test]
fn wrong_credentials_name_what_must_be_set_and_show_none() {
    for (service, variable, secret) in [
        (Service::S3, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        (Service::Google, "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY"),
        (Service::Azure, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    ] {
        let store = ObjectStore::closed(service);
        let place = place_with(&format!("{}/jobs", store.location())).set("restart={\"attempts\":1,\"first\":\"1ms\"}");
        let refused = ended(with(&store, &mut place.run(&["--state", "state"])));
        assert!(!matches!(refused.code, None | Some(0)), "{service:?}: {}", refused.stderr);
        let (_, value) = store.environment().iter().find(|(name, _)| name == secret).expect("it was set");
        assert!(!refused.stderr.contains(value), "{service:?}: {}", refused.stderr);
        refused.saying(&["the credentials are missing, wrong or expired", variable]);
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let store = ObjectStore::start(Service::S3);
    let location = format!("{}-not/jobs", store.location());
    let place = place_with(&location).set("restart={\"attempts\":1,\"first\":\"1ms\"}");
    let refused = ended(with(&store, &mut place.run(&["--state", "state"])));
    assert!(!matches!(refused.code, None | Some(0)), "{}", refused.stderr);
    refused.saying(&["there is no bucket or container for", &location, "make it first"]);
}

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_store_that_is_gone_is_named_and_the_job_goes_on_when_it_is_back() {
    let store = ObjectStore::start(Service::S3);
    let place = place_with(&format!("{}/jobs", store.location()));
    killed_after(with(&store, &mut place.run(&["--state", "state"])), Duration::from_millis(900));
    let mut elsewhere = place.run(&["--state", "state"]);
    let refused = ended(with(&store, &mut elsewhere).env("AWS_ENDPOINT_URL", NOBODY));
    assert!(!matches!(refused.code, None | Some(0)), "{}", refused.stderr);
    refused.saying(&["the storage does not answer; check the network and the endpoint"]);
    ended(with(&store, &mut place.run(&["--state", "state"]))).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

const ANYBODY: [(&str, &str); 3] = [("AWS_ACCESS_KEY_ID", "somebody"), ("AWS_SECRET_ACCESS_KEY", "something"), ("AWS_REGION", "us-east-1")];

/// Nothing has happened since its last checkpoint, so nothing is to be done before it ends.
#[test]
fn a_job_that_waits_to_try_again_is_stopped_at_once() {
    let place = counting::place(Some(ROWS), RATE).set("checkpoints={\"storage\":\"s3://checkpoints/jobs\"}");
    let mut command = place.run(&["--state", "state"]);
    let mut waiting = Running::start(command.envs(ANYBODY).env("AWS_ENDPOINT_URL", NOBODY));
    waiting.until("goes back to its last checkpoint");
    waiting.signal("INT");
    waiting.ended().with_code(130);
}
