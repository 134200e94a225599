//! Control groups: what all threads of a process get together, beside the processes of other groups. A process with a hundred threads that want to run gets
//! no more of the CPU time than one with a single thread, and one that takes more memory than its group has is ended by the kernel, and no other.
//!
//! They belong to whoever starts processes, not to the process inside: a group is made, the process is put in, and it never sees the files. Both versions
//! of the kernel's interface are spoken: version 2 where it has the controllers, version 1 (and machines with both) where they are there. What a machine does
//! not let us do is said as a [`Standing`]; nothing here is an error that keeps a service from its work.
//!
//! The groups of a service lie beside each other and beside its own process, not together in one group: the kernel shares CPU time level by level, and with one
//! level more a thread that woke up waited up to a second for it beside busy neighbours (Linux 6.18, two cores; `make bench ONLY=neighbour`), where it
//! otherwise waits as long as alone.
//!
//! Source: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst` of the kernel. The crates for it (`cgroups-rs`, `libcgroups`) make groups of
//! containers, from the root of the tree or through systemd; here half a dozen files are written below the group in which this process already is.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::Standing;

/// What the names of all groups begin with, whichever service made them.
const OURS: &str = "millstream-";
/// How often a group is made again that another service has taken for one that was left behind.
const TRIES: usize = 3;
const NONE: &str = "the kernel has neither a `cpu` nor a `memory` controller here";

/// What a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Share of CPU time where groups compete for it: one with 200 gets twice as much as one with 100. 1 to 10,000.
    pub cpu: u32,
    /// Bytes of memory, files in memory included, before the kernel ends it; none: as much as there is.
    pub memory_bytes: Option<u64>,
}

/// The directories in which groups are made, each group in all of them under its name.
#[derive(Debug)]
pub struct Groups {
    /// What names of groups begin with, so that they are told from those of others.
    prefix: String,
    cpu: Option<Controller>,
    memory: Option<Controller>,
}

/// The files of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    version: Version,
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What this machine has, read from `/proc`: where this process is now, for each controller.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    cpu: Option<Controller>,
    memory: Option<Controller>,
}

/// What of groups there would be: nothing is made.
pub fn offered() -> Standing {
    let found = match find() {
        Ok(found) => found,
        Err(error) => return Standing::Missing { reason: error.to_string() },
    };
    for Controller { version, directory } in [&found.cpu, &found.memory].into_iter().flatten() {
        if let Err(reason) = may_make(*version, directory) {
            return Standing::Missing { reason };
        }
    }
    found.standing()
}

impl Groups {
    /// Groups below that of this process, whose names have `name` in them. Empty ones that were left there by a service that was killed are removed.
    ///
    /// With version 2 this process moves into a group of its own, since one with groups below it may have no processes.
    ///
    /// # Errors
    /// The reason why this machine has none for us.
    pub fn open(name: &str) -> Result<Self, String> {
        let found = find().map_err(|error| error.to_string())?;
        let handed_down = found.handed_down();
        for Controller { version, directory } in [&found.cpu, &found.memory].into_iter().flatten() {
            may_make(*version, directory)?;
            if *version == Version::Two {
                delegate(directory, &handed_down).map_err(|error| format!("{}: {error}", directory.display()))?;
            }
        }
        if found.cpu.is_none() && found.memory.is_none() {
            return Err(NONE.to_owned());
        }
        let groups = Self { prefix: format!("{OURS}{name}-"), cpu: found.cpu, memory: found.memory };
        groups.remove_all(OURS);
        Ok(groups)
    }

    /// Which of the two kinds of limits there are.
    pub fn standing(&self) -> Standing {
        standing(self.cpu.is_some(), self.memory.is_some())
    }

    /// Puts a process, with all its threads, into a group, which is made if it is not there.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses.
    pub fn put(&self, group: &str, process: u32, share: Share) -> io::Result<()> {
        // What is said of a directory that is gone, and of an open file of one.
        let is_gone = |error: &io::Error| error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV);
        let mut put = self.try_to_put(group, process, share);
        for _ in 1..TRIES {
            if put.as_ref().is_err_and(is_gone) {
                put = self.try_to_put(group, process, share);
            }
        }
        put
    }

    fn try_to_put(&self, group: &str, process: u32, share: Share) -> io::Result<()> {
        for controller in self.controllers() {
            let directory = self.directory_of(controller, group);
            fs::create_dir(&directory).or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        }
        self.limit(group, share)?;
        self.controllers()
            .try_for_each(|controller| fs::write(self.directory_of(controller, group).join("cgroup.procs"), process.to_string()))
    }

    /// Changes what a group may use.
    ///
    /// # Errors
    /// There is no such group, or the kernel refuses.
    pub fn limit(&self, group: &str, share: Share) -> io::Result<()> {
        if let Some(cpu) = &self.cpu {
            let (file, weight) = cpu.version.weight(share.cpu);
            fs::write(self.directory_of(cpu, group).join(file), weight.to_string())?;
        }
        if let Some(memory) = &self.memory {
            let (file, most) = memory.version.memory(share.memory_bytes);
            fs::write(self.directory_of(memory, group).join(file), most)?;
        }
        Ok(())
    }

    /// How often the kernel has ended a process of a group because of its memory.
    pub fn ended_for_memory(&self, group: &str) -> u64 {
        let Some(memory) = &self.memory else { return 0 };
        let file = match memory.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.directory_of(memory, group).join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or_default()
    }

    /// Removes a group whose processes have ended; one that has some stays.
    pub fn remove(&self, group: &str) {
        for controller in self.controllers() {
            // Nothing is in it, or the next service removes it.
            drop(fs::remove_dir(self.directory_of(controller, group)));
        }
    }

    /// Removes the groups in which nothing runs and whose names begin like this.
    fn remove_all(&self, prefix: &str) {
        for controller in self.controllers() {
            for entry in fs::read_dir(&controller.directory).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                    // One that still has processes stays.
                    drop(fs::remove_dir(entry.path()));
                }
            }
        }
    }

    fn directory_of(&self, controller: &Controller, group: &str) -> PathBuf {
        controller.directory.join(format!("{}{group}", self.prefix))
    }

    /// Each directory once.
    fn controllers(&self) -> impl Iterator<Item = &Controller> {
        let is_other = |memory: &&Controller| Some(*memory) != self.cpu.as_ref();
        self.cpu.iter().chain(self.memory.iter().filter(is_other))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.remove_all(&self.prefix);
    }
}

impl Found {
    fn standing(&self) -> Standing {
        standing(self.cpu.is_some(), self.memory.is_some())
    }

    /// What groups below get of version 2, as its files say it.
    fn handed_down(&self) -> String {
        let two = |controller: &Option<Controller>| controller.as_ref().is_some_and(|controller| controller.version == Version::Two);
        let names = [(two(&self.cpu), "+cpu"), (two(&self.memory), "+memory")];
        names.iter().filter_map(|(is_there, name)| is_there.then_some(*name)).collect::<Vec<_>>().join(" ")
    }
}

fn standing(has_cpu: bool, has_memory: bool) -> Standing {
    let missing = |what: &str| Standing::Partly { missing: format!("the kernel has no `{what}` controller here") };
    match (has_cpu, has_memory) {
        (true, true) => Standing::Up,
        (true, false) => missing("memory"),
        (false, true) => missing("cpu"),
        (false, false) => Standing::Missing { reason: NONE.to_owned() },
    }
}

impl Version {
    /// The file, and the number that 100 of ours becomes in proportion: each version has its own default.
    fn weight(self, share: u32) -> (&'static str, u32) {
        match self {
            Self::One => ("cpu.shares", (u64::from(share) * 1_024 / 100).clamp(2, 262_144) as u32),
            Self::Two => ("cpu.weight", share.clamp(1, 10_000)),
        }
    }

    fn memory(self, most: Option<u64>) -> (&'static str, String) {
        match self {
            Self::One => ("memory.limit_in_bytes", most.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())),
            Self::Two => ("memory.max", most.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string())),
        }
    }
}

fn find() -> io::Result<Found> {
    let (mounts, own) = (fs::read_to_string("/proc/self/mountinfo")?, fs::read_to_string("/proc/self/cgroup")?);
    let has = |directory: &Path| fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    Ok(found(&mounts, &own, has))
}

/// `mounts`: `/proc/self/mountinfo`; `own`: `/proc/self/cgroup`; `has`: which controllers a directory of version 2 has.
fn found(mounts: &str, own: &str, has: impl Fn(&Path) -> String) -> Found {
    let two = own.lines().find_map(|line| line.strip_prefix("0::")).and_then(|path| {
        let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.kind == "cgroup2")?;
        Some(mount.directory_of(path))
    });
    let controllers = two.as_deref().map(has).unwrap_or_default();
    let of = |name: &str| {
        let version_2 = two.clone().filter(|_| controllers.split_whitespace().any(|controller| controller == name));
        version_2.map(|directory| Controller { version: Version::Two, directory }).or_else(|| {
            let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.kind == "cgroup" && mount.has(name))?;
            // `<number>:<controllers>:<path>`
            let path = own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|controller| controller == name).then_some(path)
            })?;
            Some(Controller { version: Version::One, directory: mount.directory_of(path) })
        })
    };
    Found { cpu: of("cpu"), memory: of("memory") }
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// Which directory of the tree is seen there.
    root: &'a str,
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `<id> <parent> <device> <root> <place> <options> [tag …] - <kind> <source> <options of the file system>`
    fn parse(line: &'a str) -> Option<Self> {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let (mut of_mount, mut of_system) = (of_mount.split(' '), of_system.split(' '));
        Some(Self { root: of_mount.nth(3)?, at: of_mount.next()?, kind: of_system.next()?, options: of_system.nth(1)? })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }

    /// Where the group with this path is.
    fn directory_of(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root).unwrap_or(path).trim_start_matches('/');
        if below.is_empty() { PathBuf::from(self.at) } else { Path::new(self.at).join(below) }
    }
}

/// Whether groups can be made below this one.
fn may_make(version: Version, directory: &Path) -> Result<(), String> {
    let file = match version {
        Version::One => directory.to_owned(),
        // Whoever may write it has been given this part of the tree.
        Version::Two => directory.join("cgroup.subtree_control"),
    };
    if !is_writable(&file) {
        return Err(format!("{} may not be written (a systemd unit with `Delegate=yes` may)", file.display()));
    }
    if version == Version::Two && directory.parent().is_some_and(|parent| parent.join("cgroup.procs").exists()) {
        let others = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        if others.lines().any(|process| process != std::process::id().to_string()) {
            return Err(format!(
                "{} has other processes in it: start the service as a unit or a container of its own",
                directory.display()
            ));
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the standard library does not tell it for directories")]
fn is_writable(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the pointer leads to a string that ends with zero and lives until the call is over.
    unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
}

/// Hands the controllers of version 2 down to the groups below: this process moves out of the way first.
fn delegate(own: &Path, handed_down: &str) -> io::Result<()> {
    let service = own.join("service");
    fs::create_dir(&service).or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
    fs::write(service.join("cgroup.procs"), "0")?;
    fs::write(own.join("cgroup.subtree_control"), handed_down)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn one(directory: &str) -> Option<Controller> {
        Some(Controller { version: Version::One, directory: directory.into() })
    }

    fn two(directory: &str) -> Option<Controller> {
        Some(Controller { version: Version::Two, directory: directory.into() })
    }

    #[test]
    fn each_controller_is_where_the_kernel_has_it() {
        let own = "4:memory:/process\n2:cpu,cpuacct:/\n0::/\n";
        let found_here = found(HYBRID, own, |_| String::new());
        assert_eq!(found_here, Found { cpu: one("/sys/fs/cgroup/cpu,cpuacct"), memory: one("/sys/fs/cgroup/memory/process") });
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found_there = found(unified, "0::/system.slice/millstream.service\n", |directory| {
            assert_eq!(directory, Path::new("/sys/fs/cgroup/system.slice/millstream.service"));
            "cpuset cpu io memory pids\n".to_owned()
        });
        let own = "/sys/fs/cgroup/system.slice/millstream.service";
        assert_eq!(found_there, Found { cpu: two(own), memory: two(own) });
        assert_eq!(found("", "", |_| unreachable!("nothing is mounted")), Found::default());
    }

    #[test]
    fn in_a_container_without_a_tree_of_its_own_the_path_begins_at_what_is_mounted() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n";
        let found = found(mounts, "4:memory:/docker/abc/inner\n", |_| String::new());
        assert_eq!(found, Found { cpu: None, memory: one("/sys/fs/cgroup/memory/inner") });
        assert_eq!(found.standing(), Standing::Partly { missing: "the kernel has no `cpu` controller here".to_owned() });
    }

    #[test]
    fn a_share_becomes_the_weight_that_is_in_proportion_to_the_default() {
        assert_eq!([1, 100, 200, 10_000].map(|share| Version::One.weight(share).1), [10, 1_024, 2_048, 102_400]);
        assert_eq!([1, 100, 200, 10_000].map(|share| Version::Two.weight(share).1), [1, 100, 200, 10_000]);
    }
}
