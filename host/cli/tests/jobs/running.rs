//! A job that runs beside the test, which listens to what it says.

use std::{
    io::{BufRead, BufReader, Read as _},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
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

/// A process that says what it says to a file, however much that is; killed if the test forgets it.
pub struct Silent {
    child: Child,
    end: Receiver<()>,
}

impl Silent {
    /// Starts a process whose standard error goes somewhere already.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (tell, end) = sync_channel(1);
        thread::spawn(move || {
            // It closes when the process ends, whichever way.
            let _read = stdout.read_to_end(&mut Vec::new());
            let _told = tell.send(());
        });
        Self { child, end }
    }

    /// Sends a signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits so long for its end; its exit code.
    pub fn ends_within(&mut self, time: Duration) -> Option<Option<i32>> {
        match self.end.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => None,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Some(self.child.wait().unwrap().code()),
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Usually it has ended.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
