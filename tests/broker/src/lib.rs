//! A real Kafka broker for tests, started by `scripts/kafka`, and a real schema registry, started by `scripts/registry`. They take 370 and 250 MB and up to
//! a minute to be ready, so tests share one of each, whatever binary they are in, and tell each other apart by the names of their topics; only
//! what kills or restarts a broker has one of its own.

pub mod proxy;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use self::proxy::Proxy;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// # Panics
/// The script fails; what it said stands in the message.
fn script(arguments: &[&str]) -> String {
    run("scripts/kafka", arguments)
}

fn run(script: &str, arguments: &[&str]) -> String {
    let done = Command::new(root().join(script)).args(arguments).stdin(Stdio::null()).output().expect("scripts can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(done.status.success(), "{script} {arguments:?}: {} {}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

/// Makes a topic on the broker at `address`.
///
/// # Panics
/// It cannot be made.
pub fn create_topic(address: &str, name: &str, partitions: u32) {
    script(&["topic", address, name, &partitions.to_string()]);
}

/// Kafka's own reader of what is committed: prints `Partition:P Offset:O VALUE` for every record from the first one on, and waits for more.
pub fn reader(address: &str, topic: &str) -> Command {
    let mut command = Command::new(root().join("scripts/kafka"));
    command.args(["read", address, topic]).stdin(Stdio::null());
    command
}

/// Kafka's own producer: writes every line of its input as a value, packed with `codec`, and ends with its input.
pub fn writer(address: &str, topic: &str, codec: &str) -> Command {
    let mut command = Command::new(root().join("scripts/kafka"));
    command.args(["write", address, topic, codec]).stdin(Stdio::piped());
    command
}

/// The broker that all tests share. It goes some time after the last of these.
pub struct SharedBroker {
    address: String,
    _lock: File,
}

impl SharedBroker {
    /// Starts it when nobody has.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn get() -> Self {
        let lock = shared_lock(".cache/kafka/shared");
        Self { address: script(&["shared"]), _lock: lock }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the broker has written down of a partition, as it lies on the disk.
    ///
    /// # Panics
    /// It has no such partition.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<u8> {
        fs::read(script(&["shared-log", topic, &partition.to_string()])).expect("the broker has the partition")
    }
}

/// The schema registry that all tests share, started by `scripts/registry`. It goes some time after the last of these.
pub struct SharedRegistry {
    url: String,
    _lock: File,
}

impl SharedRegistry {
    /// Starts it when nobody has.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn get() -> Self {
        let lock = shared_lock(".cache/registry/shared");
        Self { url: run("scripts/registry", &["shared"]), _lock: lock }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Whoever holds it keeps what is shared there running.
fn shared_lock(directory: &str) -> File {
    let directory = root().join(directory);
    fs::create_dir_all(&directory).expect("the cache is writable");
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock")).expect("the cache is writable");
    // Before it is asked for: it may be about to go.
    lock.lock_shared().expect("the lock can be taken");
    lock
}

/// A broker of one test; killed when this is dropped, and when the process that started it dies.
pub struct Broker {
    directory: PathBuf,
    address: String,
}

impl Broker {
    /// Starts one that keeps its data in `directory`; `settings` as `name=value`.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(directory: &Path, settings: &[&str]) -> Self {
        let place = directory.display().to_string();
        let owner = format!("millstream.owner={}", process::id());
        let arguments: Vec<&str> = ["start", &place, &owner].into_iter().chain(settings.iter().copied()).collect();
        Self { directory: directory.to_owned(), address: script(&arguments) }
    }

    /// The same, with a second way in, that of the proxy.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn behind(directory: &Path, proxy: &Proxy) -> Self {
        let broker = Self::start(directory, &["millstream.listeners=PROXIED:PLAINTEXT", &format!("millstream.proxy={}", proxy.address())]);
        proxy.set_broker(broker.listener("PROXIED").parse().expect("an address"));
        broker
    }

    /// Where it listens besides: the address of a listener in its setting `millstream.listeners`.
    ///
    /// # Panics
    /// It has no such listener.
    pub fn listener(&self, name: &str) -> String {
        let listeners = fs::read_to_string(self.directory.join("listeners")).expect("the script wrote it");
        let mut named = listeners.lines().filter_map(|line| line.split_once('='));
        named.find(|(listener, _)| *listener == name).map(|(_, address)| address.to_owned()).expect("there is such a listener")
    }

    /// Allows a user something, such as `["topic", "out", "write"]`; a name may end in `*`.
    ///
    /// # Panics
    /// It cannot be allowed.
    pub fn allow(&self, user: &str, rule: [&str; 3]) {
        let [kind, name, operation] = rule;
        script(&["allow", &self.address, user, kind, name, operation]);
    }

    /// `host:port`; stays the same when it is started again.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Panics
    /// It cannot be ended.
    pub fn kill(&self) {
        script(&["stop", &self.directory.display().to_string(), "--kill"]);
    }

    /// Ends it as an operator would.
    ///
    /// # Panics
    /// It cannot be ended.
    pub fn stop(&self) {
        script(&["stop", &self.directory.display().to_string()]);
    }

    /// Starts it again with what it had.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start_again(&self) {
        script(&["start", &self.directory.display().to_string()]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
