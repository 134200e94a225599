//! Checkpoints in an object store: a server of its own that speaks the protocol of S3.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Duration,
};

use millstream_job_tests::components::repository;

use crate::{
    binary::{Random, ended, killed_after},
    counting,
    running::Running,
};

const ROWS: u64 = 40_000;
const RATE: u64 = 20_000;
const BUCKET: &str = "checkpoints";

/// A running server; it holds its objects in memory and ends with the test.
struct S3 {
    process: Child,
    endpoint: String,
}

impl S3 {
    /// Starts one on a free port, and makes the bucket.
    fn start() -> Self {
        let server = "import sys\nfrom moto.server import ThreadedMotoServer\n\
                      server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\nserver.start()\n\
                      import boto3\nhost, port = server.get_host_and_port()\n\
                      boto3.client('s3', endpoint_url=f'http://{host}:{port}', region_name='us-east-1').create_bucket(Bucket=sys.argv[1])\n\
                      print(f'http://{host}:{port}', flush=True)\nsys.stdin.read()\n";
        let python = repository().join(".cache/venv/bin/python");
        let mut command = Command::new(python);
        command.args(["-c", server, BUCKET]).envs(CREDENTIALS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        if endpoint.is_empty() {
            let mut said = String::new();
            process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server of S3 did not start:\n{said}");
        }
        Self { process, endpoint: endpoint.trim().to_owned() }
    }

    /// The command, with the server as its object store.
    fn serves<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(CREDENTIALS).env("AWS_ENDPOINT_URL", &self.endpoint).env("AWS_REGION", "us-east-1")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It ends by itself, too, when its input closes.
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "somebody"), ("AWS_SECRET_ACCESS_KEY", "something")];

#[test]
fn a_job_whose_checkpoints_lie_in_an_object_store_is_killed_and_goes_on() {
    let server = S3::start();
    let place =
        counting::place(Some(ROWS), RATE).set(format!("checkpoints={{\"interval\":\"50ms\",\"storage\":\"s3://{BUCKET}/some/jobs\"}}"));
    let mut random = Random::seeded("object store", 11);
    for _ in 0..4 {
        let wait = random.time_up_to(Duration::from_millis(900));
        killed_after(server.serves(&mut place.run(&["--state", "state"])), wait);
    }
    ended(server.serves(&mut place.run(&["--state", "state"]))).with_code(0);
    counting::check(&place.join("out"), ROWS);
    ended(server.serves(&mut place.millstream(&["checkpoint", "verify", "state"]))).with_code(0);
}

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_store_that_is_gone_is_named_and_the_job_goes_on_when_it_is_back() {
    let server = S3::start();
    let place = counting::place(Some(ROWS), RATE).set(format!("checkpoints={{\"interval\":\"50ms\",\"storage\":\"s3://{BUCKET}/jobs\"}}"));
    killed_after(server.serves(&mut place.run(&["--state", "state"])), Duration::from_millis(900));
    let mut elsewhere = place.run(&["--state", "state"]);
    let refused = ended(server.serves(&mut elsewhere).env("AWS_ENDPOINT_URL", NOBODY));
    assert!(!matches!(refused.code, None | Some(0)), "{}", refused.stderr);
    refused.saying(&["the storage does not answer; check the network and the endpoint"]);
    ended(server.serves(&mut place.run(&["--state", "state"]))).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

/// Nothing has happened since its last checkpoint, so nothing is to be done before it ends.
#[test]
fn a_job_that_waits_to_try_again_is_stopped_at_once() {
    let place = counting::place(Some(ROWS), RATE).set(format!("checkpoints={{\"storage\":\"s3://{BUCKET}/jobs\"}}"));
    let mut command = place.run(&["--state", "state"]);
    let mut waiting = Running::start(command.envs(CREDENTIALS).env("AWS_ENDPOINT_URL", NOBODY).env("AWS_REGION", "us-east-1"));
    waiting.until("goes back to its last checkpoint");
    waiting.signal("INT");
    waiting.ended().with_code(130);
}
