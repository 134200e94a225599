//! A job that runs beside the test, which listens to what it says.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Command, Stdio},
};

use crate::binary::Ended;

/// A running process; killed if the test forgets it.
pub struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Running {
    /// Starts a process whose standard output is not looked at.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says this; the line.
    #[track_caller]
    pub fn until(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without saying `{part}`:\n{}", self.said);
            self.said += &line;
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sends a signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        while self.stderr.read_line(&mut self.said).unwrap() > 0 {}
        let status = self.child.wait().unwrap();
        Ended { code: status.code(), stdout: String::new(), stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Usually it has ended.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
