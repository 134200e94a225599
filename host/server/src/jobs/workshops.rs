//! The workshops of the service: one per tenant, made when it is needed first, listened to, and made again when it is lost.
//!
//! A workshop in this process is never lost. A runner is when its process ends: then the jobs of its tenant, and of nobody else, go on from their last
//! checkpoints in the next one, as they do after a start of the service. One that ends again and again is started ever more rarely.

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures::future::BoxFuture;
use millstream_egress as egress;
use millstream_model::{ErrorKind, ids::TenantId};
use millstream_sandbox::{
    Limits, Standing,
    groups::{Groups, Share},
};
use sha2::{Digest as _, Sha256};

use super::{Jobs, confined::Strangers, observed::Phase, runner::Runner};
use crate::{
    catalogue::objects::TenantSettings,
    failure::Failure,
    tenants::{Exceeded, Quota, Quotas},
    text,
    workshop::{
        Inside, Means, News, Request, Workshop,
        child::Setup,
        remote::{Remote, Starter},
    },
};

/// Shortest wait before a runner is started again; doubled with each that ends early.
const AGAIN_MS: i64 = 100;
/// Longest wait before a runner is started again.
const AGAIN_MS_MAX: i64 = 30_000;
/// A runner that has lived so long did not end early.
const STEADY_MS: i64 = 60_000;
/// How the code of tenants is kept apart.
pub enum Isolation {
    /// A process per tenant.
    Process(Box<Processes>),
    /// Not at all: it runs in this process.
    None(Arc<Means>),
}

/// How runners are started.
pub struct Processes {
    /// What starts them.
    pub starter: Starter,
    /// Where relative paths of files start.
    pub files: PathBuf,
    /// Instances of components at once, in each.
    pub instances: u32,
    /// Parallelism of jobs that do not say theirs.
    pub parallelism: NonZeroU32,
    /// Where each may connect to.
    pub egress: egress::Settings,
    /// Whose runners have no files of the machine.
    pub strangers: Strangers,
    /// Shares of CPU time and limits of memory; none: this machine does not let us, and shares are steps of `nice`.
    pub groups: Option<Groups>,
}

/// The control groups of the runners of a service, called after its directory; what this machine does not let us have is said.
pub fn groups(directory: &Path) -> Option<Groups> {
    let whole = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let opened = Groups::open(&text::hexadecimal(&digest[..4]));
    match opened {
        Ok(groups) => {
            if let Standing::Partly { missing } = groups.standing() {
                tracing::warn!("the control groups of tenants are incomplete: {missing}");
            }
            Some(groups)
        }
        Err(reason) => {
            tracing::warn!(
                "tenants have no control groups, so threads share CPU time, not tenants, and memory is looked at now and then: {reason}"
            );
            None
        }
    }
}

/// What a runner has beyond the quota of memory, at which its jobs are stopped one by one, before the kernel ends it: files that it reads and writes count
/// there, too, and so does what it is itself.
const BEYOND_QUOTA_MIN: u64 = 64 << 20;

/// What the group of a tenant may use.
fn share_of(quotas: &Quotas) -> Share {
    let most = |quota: u64| quota.saturating_add((quota / 4).max(BEYOND_QUOTA_MIN));
    Share { cpu: quotas.cpu_share, memory_bytes: quotas.memory_bytes.map(most) }
}

/// The workshops of the service.
pub struct Workshops {
    isolation: Isolation,
    directory: PathBuf,
    slots: Mutex<BTreeMap<TenantId, Arc<Slot>>>,
    /// Who tells workshops of a change.
    pub(super) telling: tokio::sync::Mutex<()>,
}

/// The workshop of one tenant.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Held>);

#[derive(Default)]
struct Held {
    workshop: Option<Arc<dyn Workshop>>,
    /// When it was made, elapsed time.
    began_ms: i64,
    /// How many have ended early, one after the other.
    early: u32,
    /// When the next one may be made, elapsed time.
    not_before_ms: i64,
    /// What its group was told last.
    share: Option<Share>,
    /// How often the kernel had ended its runner because of its memory.
    ended_for_memory: u64,
}

impl Workshops {
    /// None yet. `directory`: that of the service.
    pub fn new(isolation: Isolation, directory: PathBuf) -> Self {
        Self { isolation, directory, slots: Mutex::default(), telling: tokio::sync::Mutex::default() }
    }

    /// Whether jobs run behind walls.
    pub(super) fn have_walls(&self) -> bool {
        matches!(self.isolation, Isolation::Process(_))
    }

    /// The workshop of a tenant; none: it has none now.
    pub(super) async fn existing(&self, tenant: &TenantId) -> Option<Arc<dyn Workshop>> {
        self.slot(tenant).0.lock().await.workshop.clone()
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant.clone()).or_default().clone()
    }

    /// Where the jobs of a tenant have their directories.
    pub fn jobs_of(&self, tenant: &TenantId) -> PathBuf {
        self.directory.join("jobs").join(tenant.as_str())
    }

    /// What the service lays out for the runner of a tenant.
    fn room_of(&self, tenant: &TenantId) -> PathBuf {
        self.directory.join("runners").join(tenant.as_str())
    }

    /// Puts a component where the workshop of a tenant finds it, and only that one.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn offer(&self, tenant: &TenantId, digest: &str) -> Result<(), Failure> {
        if matches!(self.isolation, Isolation::None(_)) {
            return Ok(());
        }
        let (directory, room, digest) = (self.directory.clone(), self.room_of(tenant), digest.to_owned());
        let laid_out = tokio::task::spawn_blocking(move || lay_out(&directory, &room, &digest)).await;
        laid_out
            .expect("file work does not panic")
            .map_err(|error| Failure::new(ErrorKind::Unavailable, "a component cannot be put where its runner finds it").because(&error))
    }

    /// What the group of a tenant may use follows its quotas while its runner runs.
    pub fn follow(&self, tenant: &TenantId, quotas: &Quotas) {
        let Isolation::Process(processes) = &self.isolation else { return };
        let (Some(groups), slot) = (&processes.groups, self.slot(tenant)) else { return };
        // One that is being made is told its share then; whoever measures tenants must not wait for it.
        let Ok(mut held) = slot.0.try_lock() else { return };
        let share = Some(share_of(quotas));
        if held.workshop.is_some() && held.share != share {
            match groups.limit(tenant.as_str(), share_of(quotas)) {
                Ok(()) => held.share = share,
                Err(error) => tracing::warn!(%tenant, "the control group of a tenant keeps its old limits: {error}"),
            }
        }
    }

    /// How often the kernel has ended a runner of a tenant because of its memory.
    fn ended_for_memory(&self, tenant: &TenantId) -> u64 {
        let Isolation::Process(processes) = &self.isolation else { return 0 };
        processes.groups.as_ref().map_or(0, |groups| groups.ended_for_memory(tenant.as_str()))
    }

    /// The memory of the runner of a tenant; none: it has none just now.
    pub fn memory_of(&self, tenant: &TenantId) -> Option<u64> {
        // One that is being made has nothing yet.
        let slot = self.slot(tenant);
        let process = slot.0.try_lock().ok()?.workshop.as_ref()?.process()?;
        own_memory(process)
    }

    /// Which process the runner of a tenant is, and what it has sent to other machines since it began, in bytes. None: it has none, or does not answer.
    pub async fn sent_by(&self, tenant: &TenantId) -> Option<(u32, u64)> {
        let workshop = self.slot(tenant).0.try_lock().ok()?.workshop.clone()?;
        let process = workshop.process()?;
        let sent = workshop.ask(Request::Sent).await.ok()?;
        Some((process, serde_json::from_value(sent).ok()?))
    }

    /// Ends the runner of a tenant in which nothing runs: the next request makes another. A workshop in this process stays.
    pub async fn end_idle(&self, tenant: &TenantId) {
        let slot = self.slot(tenant);
        let mut held = slot.0.lock().await;
        if let Some(workshop) = held.workshop.take_if(|workshop| workshop.process().is_some()) {
            // It waits for the process.
            drop(tokio::task::spawn_blocking(move || workshop.end()).await);
        }
    }

    async fn make(&self, tenant: &TenantId, may: TenantSettings) -> Result<Arc<dyn Workshop>, Failure> {
        let jobs = self.jobs_of(tenant);
        match &self.isolation {
            Isolation::None(means) => {
                Ok(Arc::new(Inside::new(means.clone(), tenant.clone(), jobs, self.directory.join("components"), None)))
            }
            Isolation::Process(processes) => {
                let may_use = may.quotas.clone();
                let setup = self.setup(tenant, processes, may)?;
                let place = |process| processes.place(tenant, process, &may_use);
                let remote = Remote::start(&processes.starter, &setup, place).await?;
                let refused = remote.walls().refused();
                if !refused.is_empty() {
                    tracing::warn!(%tenant, "a runner has fewer walls than it should: {}", refused.join("; "));
                }
                tracing::info!(%tenant, pid = remote.pid(), "a runner has started");
                Ok(remote)
            }
        }
    }

    fn setup(&self, tenant: &TenantId, processes: &Processes, may: TenantSettings) -> Result<Setup, Failure> {
        // The group of a tenant has its share; without one, the threads of its runner have.
        let nice = if processes.groups.is_some() { 0 } else { nice_of(may.quotas.cpu_share) };
        let mut egress = processes.egress.clone();
        egress.allow.extend(may.egress_allow);
        let (jobs, room) = (self.jobs_of(tenant), self.room_of(tenant));
        // Left by the runner before; what cannot be removed is in nobody's way.
        drop(fs::remove_dir_all(Setup::temporary(&room)));
        let made = [jobs.clone(), room.join("components"), room.join("compiled"), Setup::temporary(&room)];
        let made = made.iter().try_for_each(|path| make_private(path));
        let key = linked(&self.directory.join("compiled.key"), &room.join("compiled.key"));
        made.and(key).map_err(|error| {
            Failure::new(ErrorKind::Unavailable, format!("what the runner of tenant `{tenant}` needs cannot be laid out")).because(&error)
        })?;
        // A stranger's jobs name no files, so nothing is lost, and nothing is shared.
        let is_stranger = processes.strangers.is(tenant);
        let files = (!is_stranger).then_some(processes.files.as_path());
        Ok(Setup {
            protocol: Setup::PROTOCOL,
            tenant: tenant.clone(),
            is_stranger,
            files: processes.files.clone(),
            instances: processes.instances,
            parallelism: processes.parallelism,
            sandbox: Setup::walls(&jobs, &room, files, Limits { nice, ..Limits::default() }),
            egress,
            jobs,
            room,
        })
    }
}

impl Processes {
    /// Puts a runner that has not begun into the group of its tenant.
    fn place(&self, tenant: &TenantId, process: u32, quotas: &Quotas) {
        if let Some(groups) = &self.groups
            && let Err(error) = groups.put(tenant.as_str(), process, share_of(quotas))
        {
            tracing::warn!(%tenant, "a runner is in no control group: {error}");
        }
    }
}

/// The step of `nice(2)` at which a process gets about this share of what one with 100 gets: the kernel gives each step a weight 1.25 times that of the
/// next (`sched_prio_to_weight`). Every runner has as many threads that take rows as the others, so what holds for threads holds for tenants.
fn nice_of(cpu_share: u32) -> i32 {
    let steps = (100.0 / f64::from(cpu_share.max(1))).ln() / 1.25_f64.ln();
    (steps.round() as i32).clamp(-20, 19)
}

/// The memory of a process that is its own: what it has written to. None: it has ended, or this is not Linux.
fn own_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Hard links: whoever has the one name cannot find out the others, and nothing is stored twice. The runner cannot write them.
fn lay_out(directory: &Path, room: &Path, digest: &str) -> io::Result<()> {
    for of in ["components", "compiled"] {
        make_private(&room.join(of))?;
    }
    let file = format!("{digest}.wasm");
    linked(&directory.join("components").join(&file), &room.join("components").join(&file))?;
    // Its native code, as every version of the engine names it; what is not there is compiled by the runner.
    let Ok(entries) = fs::read_dir(directory.join("compiled")) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(digest) && name.ends_with(".cwasm")) {
            linked(&entry.path(), &room.join("compiled").join(name))?;
        }
    }
    Ok(())
}

/// The file under another name, in the place of what has that name.
fn linked(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_same(from, to)? => {
            fs::remove_file(to)?;
            fs::hard_link(from, to)
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(one)?.ino() == fs::metadata(other)?.ino())
}

impl Jobs {
    /// The workshop of a tenant; made if there is none.
    ///
    /// # Errors
    /// Its runner cannot be started.
    pub async fn workshop(self: &Arc<Self>, tenant: &TenantId) -> Result<Arc<dyn Workshop>, Failure> {
        let slot = self.workshops.slot(tenant);
        let mut held = slot.0.lock().await;
        if let Some(workshop) = held.workshop.as_ref().filter(|workshop| !workshop.is_gone()) {
            return Ok(workshop.clone());
        }
        if held.workshop.take().is_some() {
            held.has_ended(self.clock.monotonic_ms());
        }
        self.clock.sleep_until_monotonic(held.not_before_ms).await;
        let may = self.tenants.settings(tenant).await?;
        let made = self.workshops.make(tenant, may).await;
        let now_ms = self.clock.monotonic_ms();
        held.began_ms = now_ms;
        match made {
            Ok(workshop) => {
                held.workshop = Some(workshop.clone());
                // It was told what the quotas were when it was made; what they are now is looked at again.
                held.share = None;
                tokio::spawn(listen(Arc::downgrade(self), tenant.clone(), workshop.clone()));
                Ok(workshop)
            }
            Err(failure) => {
                held.has_ended(now_ms);
                Err(failure)
            }
        }
    }

    /// Ends the workshop of a tenant that is nobody's any more, and removes what was laid out for it.
    pub(super) async fn end_workshop(&self, tenant: &TenantId) {
        let slot = self.workshops.slot(tenant);
        if let Some(workshop) = slot.0.lock().await.workshop.take() {
            // It waits for the process.
            drop(tokio::task::spawn_blocking(move || workshop.end()).await);
        }
        self.workshops.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        if let Isolation::Process(processes) = &self.workshops.isolation
            && let Some(groups) = &processes.groups
        {
            groups.remove(tenant.as_str());
        }
        // What cannot be removed is found by nobody.
        drop(fs::remove_dir_all(self.workshops.room_of(tenant)));
    }

    /// What has happened in a workshop.
    fn heard(&self, tenant: &TenantId, news: News) {
        let known = |job: &str| {
            let runners = self.runners.lock().unwrap_or_else(PoisonError::into_inner);
            runners.get(&(tenant.clone(), job.to_owned())).cloned()
        };
        for (job, line) in news.lines {
            // A job that we do not know is nobody's.
            if known(&job).is_some() {
                self.logs.heard(tenant, &job, line);
            }
        }
        for ended in news.ended {
            if let Some(runner) = known(&ended.job) {
                runner.has_ended(self, ended);
            }
        }
    }

    /// A workshop has gone: its jobs go on in the next one.
    async fn lost(self: &Arc<Self>, tenant: &TenantId, workshop: &Arc<dyn Workshop>) {
        let problem = Failure::new(ErrorKind::Unavailable, "the runner of the tenant has ended, and the job with it")
            .fix("it goes on from its last checkpoint by itself; the log of the service says how the runner ended");
        let mut runners: Vec<Arc<Runner>> = {
            let runners = self.runners.lock().unwrap_or_else(PoisonError::into_inner);
            runners.iter().filter(|((owner, _), _)| owner == tenant).map(|(_, runner)| runner.clone()).collect()
        };
        runners.sort_by_key(|runner| runner.observed().since_ms);
        let mut lost: Vec<Arc<Runner>> = runners.into_iter().filter(|runner| runner.is_lost(self, workshop, &problem)).collect();
        // With those before it there was room.
        if let Some(exceeded) = self.memory_exceeded(tenant).await
            && let Some(youngest) = lost.pop()
        {
            let failure = exceeded.failure();
            tracing::warn!(%tenant, job = %youngest.job, "the job stays stopped, since the kernel has ended its runner: {failure}");
            youngest.set(self, Phase::Failed, failure.problems);
        }
        if let Err(failure) = self.go_on_with(lost).await {
            tracing::error!(%tenant, "not every job of a runner that has ended goes on: {failure}");
        }
    }
}

impl Jobs {
    /// Whether the kernel has ended the runner of a tenant because of its memory since this was asked last.
    async fn memory_exceeded(&self, tenant: &TenantId) -> Option<Exceeded> {
        let ended = self.workshops.ended_for_memory(tenant);
        let before = std::mem::replace(&mut self.workshops.slot(tenant).0.lock().await.ended_for_memory, ended);
        // Who cannot be asked for the quota has a catalogue that fails, which is said elsewhere.
        let limit = self.tenants.quotas(tenant).await.ok().filter(|_| ended > before)?;
        let (limit, used) = (limit.memory_bytes?, share_of(&limit).memory_bytes?);
        Some(Exceeded { quota: Quota::MemoryBytes, limit, used })
    }
}

impl Held {
    /// The workshop has ended: the next one has to wait, longer each time, unless this one had lived long enough.
    fn has_ended(&mut self, now_ms: i64) {
        self.early = if now_ms - self.began_ms >= STEADY_MS { 0 } else { self.early.saturating_add(1) };
        self.not_before_ms = now_ms + wait_ms(self.early);
    }
}

fn wait_ms(early: u32) -> i64 {
    if early == 0 { 0 } else { AGAIN_MS.saturating_mul(1 << (early - 1).min(20)).min(AGAIN_MS_MAX) }
}

/// Listens to a workshop for as long as it is there. (Boxed: a workshop that is lost is made again, and listened to.)
fn listen(jobs: Weak<Jobs>, tenant: TenantId, workshop: Arc<dyn Workshop>) -> BoxFuture<'static, ()> {
    Box::pin(heed(jobs, tenant, workshop))
}

async fn heed(jobs: Weak<Jobs>, tenant: TenantId, workshop: Arc<dyn Workshop>) {
    let (mut ends, mut lines) = (0, 0);
    loop {
        let news: Result<News, Failure> = workshop.answer(Request::News { ends, lines }).await;
        let Some(jobs) = jobs.upgrade() else { return };
        match news {
            Ok(news) => {
                // What counts backwards would be heard again and again.
                (ends, lines) = (ends.max(news.ends), lines.max(news.lines_until));
                jobs.heard(&tenant, news);
            }
            Err(_) if workshop.is_gone() => return jobs.lost(&tenant, &workshop).await,
            Err(failure) => {
                tracing::error!(%tenant, "a workshop does not tell what happens: {failure}");
                jobs.clock.sleep(AGAIN_MS).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_ends_early_is_started_ever_more_rarely_and_one_that_lived_long_at_once() {
        assert_eq!([0, 1, 2, 3, 9, 10, 1_000].map(wait_ms), [0, 100, 200, 400, 25_600, 30_000, 30_000]);
        let mut held = Held::default();
        held.has_ended(10);
        held.has_ended(20);
        assert_eq!((held.early, held.not_before_ms), (2, 220));
        held.began_ms = 20;
        held.has_ended(20 + STEADY_MS);
        assert_eq!((held.early, held.not_before_ms), (0, 20 + STEADY_MS));
    }

    #[test]
    fn a_share_becomes_the_step_of_nice_whose_weight_it_is() {
        assert_eq!([100, 200, 50, 25, 10, 1, 10_000].map(nice_of), [0, -3, 3, 6, 10, 19, -20]);
    }

    #[test]
    fn a_room_holds_the_components_of_its_tenant_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).and_then(|()| fs::write(path, text)).expect("writable");
        };
        write("components/aa.wasm", "a");
        write("compiled/aa-1.cwasm", "native a");
        write("components/bb.wasm", "b");
        write("compiled/bb-1.cwasm", "native b");
        let room = directory.path().join("runners/t");
        lay_out(directory.path(), &room, "aa").expect("laid out");
        // Compiled again, by another version: the new file takes the place of the old one.
        fs::remove_file(directory.path().join("compiled/aa-1.cwasm")).expect("there");
        write("compiled/aa-1.cwasm", "newer");
        lay_out(directory.path(), &room, "aa").expect("laid out again");
        let listed = |of: &str| -> Vec<String> {
            let names = fs::read_dir(room.join(of)).expect("there").map(|entry| entry.expect("an entry").file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        };
        assert_eq!((listed("components"), listed("compiled")), (vec!["aa.wasm".to_owned()], vec!["aa-1.cwasm".to_owned()]));
        assert_eq!(fs::read(room.join("compiled/aa-1.cwasm")).expect("there"), b"newer");
    }
}
