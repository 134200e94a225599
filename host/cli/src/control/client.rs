//! The asking side: one request to the process that runs the job of a directory.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
};

use serde::de::DeserializeOwned;

use super::{
    address,
    protocol::{ANSWER_BYTES_MAX, Answer, Refusal, Request},
};
use millstream_server::place::{Owner, Place};

use crate::report::{Exit, Failure};

/// What the running job answers; none: no process runs the job.
pub fn ask<T: DeserializeOwned>(place: &Place, request: &Request) -> Result<Option<T>, Failure> {
    let stream = match address::with(&place.socket(), |address| UnixStream::connect(address)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(broken(place, &error)),
    };
    match exchange(&stream, request).map_err(|error| broken(place, &error))? {
        Answer::Result(value) => serde_json::from_value(value).map(Some).map_err(|error| broken(place, &error)),
        Answer::Error(refusal) => Err(refusal.into()),
    }
}

fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<Answer> {
    stream.write_all(&request.to_line())?;
    let mut line = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process that runs the job ended before it answered"));
    }
    Ok(serde_json::from_slice(&line)?)
}

fn broken(place: &Place, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Exit::Failed, format!("the process that runs the job in `{}` did not answer", place.path().display())).because(error)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let mut failure = Self::new(Exit::of(refusal.kind), refusal.message);
        failure.told.problems[0].causes = refusal.causes;
        failure.told.problems[0].fix = refusal.fix;
        failure
    }
}

/// The failure of a command that only a running job can carry out.
pub fn does_not_run(place: &Place, owner: &Owner) -> Failure {
    Failure::new(Exit::Failed, format!("job `{}` does not run", owner.job)).fix(format!(
        "start it: millstream run {} --state {}",
        owner.job_file.display(),
        place.path().display()
    ))
}
