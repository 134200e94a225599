//! The service as a process: opened, started, served, ended.
//!
//! Start: lock the directory → open the catalogue → a first token, if there is none → listen → start every job that should run → ready. End: no new
//! connection → every job stops behind a last checkpoint → done. Control (HTTP, catalogue, supervision) and data (rows) have runtimes of their own: full
//! load does not make it mute.
//!
//! ```text
//! DIR/lock            held by the process
//! DIR/catalogue.log   crate::catalogue
//! DIR/audit.log       crate::catalogue
//! DIR/components/     crate::components
//! DIR/compiled/       native code of components, signed
//! DIR/compiled.key    the key of those signatures
//! DIR/files/          where relative paths of job files start
//! DIR/jobs/           crate::jobs
//! DIR/runners/        what the runner of each tenant may read (crate::workshop)
//! ```

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    num::NonZeroU32,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use millstream_connectors::kafka::{KafkaSink, KafkaSource, Machine};
use millstream_egress::{self as egress, Policy, gate};
use millstream_engine::{
    clock::{Clock, SystemClock},
    connector::Connectors,
    run::CrashPoints,
};
use millstream_model::{ErrorKind, ids::TenantId};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_storage::{DirectoryLock, durable};
use millstream_wasm::{Runtime, RuntimeSettings};
use tokio::{net::TcpListener, runtime::Handle, sync::watch};

use crate::{
    catalogue::{
        Expected, Kind, LocalCatalogue, Store,
        objects::{Answer, Scope, Token},
    },
    components::{
        Components, compile,
        pull::{Puller, Registry},
    },
    events::Events,
    failure::Failure,
    http::{self, connection, service::Service, tls::Certificates},
    jobs::{
        Jobs,
        confined::Strangers,
        meter::Meter,
        workshops::{self, Isolation, Processes, Workshops},
    },
    logs::Logs,
    random::Seeded,
    references::Hidden,
    tenants::Tenants,
    token::{self, Wanted},
    workshop::{Means, remote::Starter},
};

/// How often files of certificates and old answers are looked at.
const TIDY_MS: i64 = 5_000;
/// How long answers are kept under their idempotency keys.
const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;

/// What the service is told.
pub struct Settings {
    /// Where everything lies that it must not lose.
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Certificate and key; none: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Somebody in front of it encrypts.
    pub is_behind_proxy: bool,
    /// Where relative paths of job files start; none: `files` in the directory.
    pub files: Option<PathBuf>,
    /// How the code of tenants is kept apart.
    pub isolation: Isolated,
    /// Instances of components at once, in each process that has any; addresses are reserved for them, not memory.
    pub instances: u32,
    /// Who compiles. The service adds where native code goes.
    pub compiler: compile::Settings,
    /// Whose jobs name nothing of this machine.
    pub strangers: Strangers,
    /// Where this process may connect to, from the moment the service is opened.
    pub egress: egress::Settings,
    /// Registries that components may be pulled from.
    pub registries: Vec<Registry>,
    /// Parallelism of jobs that do not say theirs.
    pub parallelism: NonZeroU32,
    /// The data runtime.
    pub data: Handle,
    /// What job files may name.
    pub connectors: Connectors,
    /// Log lines of jobs.
    pub logs: Logs,
    /// What is kept out of everything that is said.
    pub hidden: Hidden,
    /// For tests: where to die.
    pub crash: Option<Arc<dyn CrashPoints>>,
}

/// How the code of tenants is kept apart.
pub enum Isolated {
    /// A process per tenant, as the starter starts it, with these limits.
    Process(Starter),
    /// Not at all: it runs in this process.
    None,
}

/// The service, listening.
pub struct Server {
    service: Arc<Service>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    address: SocketAddr,
    first_token: Option<String>,
    _lock: DirectoryLock,
}

/// Where native code of components goes.
pub fn compiled_directory(directory: &Path) -> PathBuf {
    directory.join("compiled")
}

/// Connectors that make sense in a service: its standard input and output are nobody's, and its files and variables are not its tenants'.
pub fn connectors() -> Connectors {
    let mut connectors = millstream_connectors::all().with_source(KafkaSource(Machine::Shared)).with_sink(KafkaSink(Machine::Shared));
    connectors.sources.remove("stdin");
    connectors.sinks.remove("stdout");
    connectors
}

impl Server {
    /// Opens the directory and listens. No job runs yet.
    ///
    /// # Errors
    /// The directory is in use or damaged, the address is taken, or it is open to others without TLS.
    pub async fn open(settings: Settings) -> Result<Self, Failure> {
        check_exposure(&settings)?;
        // Before anything of a tenant is known: nothing has been connected yet.
        let policy = Policy::read(&settings.egress).map_err(|error| Failure::from_error(error.kind(), &error))?;
        gate::close(policy).map_err(|error| Failure::from_error(ErrorKind::Conflict, &error))?;
        let directory = made(&settings.directory)?;
        let lock = DirectoryLock::acquire(&directory)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::new(Arc::new(LocalCatalogue::open(&directory)?));
        let certificates = settings.tls.as_ref().map(|(certificate, key)| Certificates::read(certificate, key)).transpose()?.map(Arc::new);
        Tenants::new(store.clone(), clock.clone()).make_local().await?;
        let first_token = first_token(&store, clock.now_ms()).await?;
        let listener = TcpListener::bind(settings.listen).await;
        let listener = listener.map_err(|error| {
            Failure::new(ErrorKind::Conflict, format!("cannot listen on {}", settings.listen))
                .because(&error)
                .fix("choose another address with --listen")
        })?;
        let address = listener.local_addr().unwrap_or(settings.listen);
        let service = service(settings, directory, store, clock)?;
        Ok(Self { service, listener, certificates, address, first_token, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token that was made because there was none; it is shown this once.
    pub fn first_token(&self) -> Option<&str> {
        self.first_token.as_deref()
    }

    /// Starts what should run and serves until `closing` says so; then stops every job behind a last checkpoint.
    pub async fn serve(self, closing: watch::Receiver<bool>) {
        let Self { service, listener, certificates, _lock, .. } = self;
        let router = http::dispatch::router(&service, &http::routes());
        let starting = tokio::spawn(start(service.clone()));
        let tidying = tokio::spawn(tidy(service.clone(), certificates.clone()));
        connection::serve(listener, certificates, router, closing).await;
        starting.abort();
        tidying.abort();
        if let Err(failure) = service.meter.last_look().await {
            tracing::warn!("the last use of the tenants could not be written down: {failure}");
        }
        service.jobs.suspend().await;
    }
}

/// Anything but this machine alone needs encryption, or the word that somebody else sees to it.
fn check_exposure(settings: &Settings) -> Result<(), Failure> {
    if settings.listen.ip().is_loopback() || settings.tls.is_some() || settings.is_behind_proxy {
        return Ok(());
    }
    Err(Failure::new(
        ErrorKind::Invalid,
        format!("{} can be reached from outside, and tokens would cross the network unencrypted", settings.listen),
    )
    .fix("give it --tls-cert and --tls-key, or say --behind-proxy if a proxy in front of it encrypts; or listen on 127.0.0.1"))
}

fn made(directory: &Path) -> Result<PathBuf, Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).and_then(|()| directory.canonicalize());
    made.map_err(|error| {
        Failure::new(ErrorKind::Unavailable, format!("the directory `{}` cannot be made", directory.display())).because(&error)
    })
}

/// Whoever starts the service can always get into it: a token is made when none is left that may do everything.
async fn first_token(store: &Store, now_ms: i64) -> Result<Option<String>, Failure> {
    let local = TenantId::local();
    let tokens = store.list::<Token>(&local, None, usize::MAX).await?;
    if tokens.iter().any(|found| found.object.scopes.contains(&Scope::Host) && token::holds(&found.object, now_ms)) {
        return Ok(None);
    }
    let scopes = BTreeSet::from([Scope::Admin, Scope::Host]);
    let wanted = Wanted { label: "made at the start of the service".to_owned(), scopes, expires_ms: None };
    Ok(Some(token::make(store, &local, wanted, now_ms).await?.text))
}

fn service(settings: Settings, directory: PathBuf, store: Store, clock: Arc<dyn Clock>) -> Result<Arc<Service>, Failure> {
    let tenants = Arc::new(Tenants::new(store.clone(), clock.clone()));
    let files = settings.files.clone().unwrap_or_else(|| directory.join("files"));
    let files = durable::create_directory(&files)
        .and_then(|()| files.canonicalize())
        .map_err(|error| Failure::new(ErrorKind::Unavailable, format!("`{}` cannot be made", files.display())).because(&error))?;
    let compiled = compiled_directory(&directory);
    // There before anybody is walled in with it.
    durable::create_directory(&compiled)
        .map_err(|error| Failure::new(ErrorKind::Unavailable, format!("`{}` cannot be made", compiled.display())).because(&error))?;
    let connectors = Arc::new(settings.connectors);
    // Of a service with runners it loads nothing; it makes the key that native code is signed with.
    let instances = if matches!(settings.isolation, Isolated::None) { settings.instances } else { 1 };
    let runtime = RuntimeSettings { cache_dir: Some(compiled), pooled_instances: instances, ..RuntimeSettings::default() };
    let runtime = Runtime::new(runtime).map_err(|error| Failure::from_error(error.kind(), &error))?;
    let bytes_max = runtime.limits().component_bytes;
    let components = Arc::new(Components::new(
        store.clone(),
        bytes_max,
        &directory,
        settings.compiler,
        Puller::new(settings.registries)?,
        tenants.clone(),
        clock.clone(),
    ));
    let isolation = match settings.isolation {
        Isolated::Process(starter) => Isolation::Process(Box::new(Processes {
            starter,
            files,
            instances: settings.instances,
            parallelism: settings.parallelism,
            egress: settings.egress,
            strangers: settings.strangers,
            groups: workshops::groups(&directory),
        })),
        Isolated::None => Isolation::None(Arc::new(Means {
            runtime,
            connectors: connectors.clone(),
            files,
            clock: clock.clone(),
            random: Arc::new(Seeded::from_system()?),
            data: settings.data,
            rocks: Arc::new(RocksShared::new(RocksSharedSettings::default())),
            crash: settings.crash,
            parallelism: settings.parallelism,
            hidden: settings.hidden.clone(),
        })),
    };
    let events = Events::new(clock.clone());
    let jobs = Arc::new(Jobs {
        store: store.clone(),
        tenants: tenants.clone(),
        components: components.clone(),
        connectors,
        strangers: settings.strangers,
        workshops: Workshops::new(isolation, directory),
        clock: clock.clone(),
        logs: settings.logs.clone(),
        hidden: settings.hidden,
        events: events.clone(),
        runners: Mutex::default(),
        tried: Default::default(),
        is_closing: AtomicBool::new(false),
    });
    let (logs, is_ready, answering) = (settings.logs, AtomicBool::new(false), Mutex::default());
    let meter = Meter::new(store.clone(), tenants.clone(), jobs.clone(), logs.clone(), clock.clone());
    Ok(Arc::new(Service { store, tenants, meter, components, jobs, events, logs, clock, is_ready, answering }))
}

async fn start(service: Arc<Service>) {
    if let Err(failure) = finish_leaving(&service).await {
        tracing::error!("a tenant that was deleted is not gone yet: {failure}");
    }
    // One does not wait for the other: what is damaged of the one is no reason for the other to stand still.
    if let Err(failure) = service.components.resume().await {
        tracing::error!("not every component is compiled that was pushed: {failure}");
    }
    if let Err(failure) = service.jobs.resume().await {
        tracing::error!("not every job could be started: {failure}");
    }
    service.is_ready.store(true, Ordering::Relaxed);
}

/// Goes on with deletions that the end of the process before has cut short.
async fn finish_leaving(service: &Service) -> Result<(), Failure> {
    for tenant in service.tenants.leaving().await? {
        service.jobs.finish_leaving(&service.tenants, &tenant).await?;
    }
    Ok(())
}

/// What is done now and then.
async fn tidy(service: Arc<Service>, certificates: Option<Arc<Certificates>>) {
    loop {
        service.clock.sleep(TIDY_MS).await;
        if let Some(certificates) = certificates.clone() {
            drop(tokio::task::spawn_blocking(move || certificates.refresh()).await);
        }
        if let Err(failure) = service.meter.look().await {
            tracing::warn!("what tenants use could not be measured: {failure}");
        }
        if let Err(failure) = forget_answers(&service).await {
            tracing::warn!("old answers could not be forgotten: {failure}");
        }
    }
}

async fn forget_answers(service: &Service) -> Result<(), Failure> {
    let before_ms = service.clock.now_ms() - ANSWERS_KEPT_MS;
    for tenant in service.store.tenants(Kind::Answer).await? {
        for found in service.store.list::<Answer>(&tenant, None, usize::MAX).await? {
            if found.object.at_ms < before_ms {
                service.store.remove::<Answer>(&tenant, &found.name, Expected::At(found.revision)).await?;
            }
        }
    }
    Ok(())
}
