//! `millstream serve`: the service. And the child in which it compiles what is pushed.

use std::{
    io::IsTerminal as _,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use millstream_egress::Mode;
use millstream_server::{
    components::{compile, pull::Registry},
    failure,
    jobs::confined::Strangers,
    logs::Logs,
    report::Report,
    serve::{Isolated, Server, Settings, compiled_directory, connectors},
    workshop::{child::Setup, remote::Starter},
};
use millstream_wasm::{Runtime, RuntimeSettings};
use tokio::sync::watch;

use crate::{
    egress::EgressArguments,
    machine,
    report::{Exit, Failure},
    run::crash_points,
    signals::Signals,
    terminal::{self, STRONG},
};

/// Runs the service: components and jobs are pushed, submitted, watched and swapped over HTTP.
///
/// At the first start it prints a token that may do everything, once: `millstream login` keeps it. Jobs run durably: after a crash, or the end of the
/// service, every job that should run goes on from its last checkpoint when the service starts again. SIGTERM and Ctrl-C stop every job behind a
/// checkpoint; again gives up at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream serve                                        on 127.0.0.1:7070, in ./millstream-data
  millstream serve --dir /var/lib/millstream --listen 0.0.0.0:7070 --tls-cert cert.pem --tls-key key.pem
  millstream serve --listen 0.0.0.0:7070 --behind-proxy   somebody in front of it encrypts

Exit codes:
  0  ended by a signal, every job behind a checkpoint
  1  the directory is in use or damaged, or the address is taken
  2  it would be open to others without TLS, or a certificate cannot be used")]
pub struct Arguments {
    /// Where everything lies that the service must not lose; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "millstream-data", env = "MILLSTREAM_DIR")]
    dir: PathBuf,
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7070", env = "MILLSTREAM_LISTEN")]
    listen: SocketAddr,
    /// Certificate chain, PEM; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy in front of it encrypts: listen on other addresses than loopback without TLS.
    #[arg(long, conflicts_with = "tls_cert")]
    behind_proxy: bool,
    /// Where relative paths of job files start [default: DIR/files].
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// A registry that components may be pulled from, as https://HOST; again for each. Without: none.
    #[arg(long, value_name = "URL", env = "MILLSTREAM_REGISTRY", value_delimiter = ',')]
    registry: Vec<String>,
    /// How the jobs of tenants are kept apart: `process` (each tenant's in a process of its own, walled in) or `none` (all in this process).
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Isolation::Process, hide_possible_values = true)]
    isolation: Isolation,
    /// Strangers share it: no job reads files, opens ports or chooses where checkpoints go, and jobs connect to the internet only (`--egress public`).
    #[arg(long)]
    hosted: bool,
    #[command(flatten)]
    egress: EgressArguments,
    /// Instances of components at once, over all jobs of a tenant.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    instances: u32,
    /// Memory that compiling one component may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2_048)]
    compile_memory: u64,
    /// CPU time that compiling one component may take, in seconds.
    #[arg(long, value_name = "S", default_value_t = 120)]
    compile_cpu: u64,
    /// Write where it listens, and the first token, to standard output as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How the jobs of tenants are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Isolation {
    /// A process per tenant.
    Process,
    /// Not at all.
    None,
}

pub fn execute(arguments: Arguments, logs: Logs) -> Result<Exit, Failure> {
    // Before the first thread: those of runners have it from here.
    if let Err(error) = millstream_sandbox::take_short_turns() {
        tracing::warn!("rows of a tenant wait longer beside busy neighbours: {}", failure::Failure::from_error(error.kind(), &error));
    }
    // With runners no row flows in this process.
    let data = runtime("millstream-data", if arguments.isolation == Isolation::None { cores() } else { 1 })?;
    let control = runtime("millstream-control", 2)?;
    let ended = control.block_on(serve(&arguments, logs, data.handle()));
    data.shutdown_background();
    control.shutdown_background();
    ended
}

/// How many threads can work at once.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// A runtime with so many threads.
pub fn runtime(name: &str, threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
    built.map_err(|error| Failure::new(Exit::Failed, "the threads of the service cannot be started").because(&error))
}

async fn serve(arguments: &Arguments, logs: Logs, data: &tokio::runtime::Handle) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let server = Server::open(settings(arguments, logs, data)?).await?;
    say(arguments, &server);
    let (close, closing) = watch::channel(false);
    let mut serving = tokio::spawn(server.serve(closing));
    tokio::select! {
        ended = &mut serving => {
            ended.expect("serving does not panic and is not cancelled");
            return Ok(Exit::Done);
        }
        _ = signals.next() => {}
    }
    terminal::note("stopping every job behind a checkpoint (again to give up at once)");
    close.send_replace(true);
    tokio::select! {
        ended = &mut serving => {
            ended.expect("serving does not panic and is not cancelled");
            Ok(Exit::Done)
        }
        signal = signals.next() => Err(Failure::new(signal, "the service was given up: some jobs go on from an earlier checkpoint")),
    }
}

fn settings(arguments: &Arguments, logs: Logs, data: &tokio::runtime::Handle) -> Result<Settings, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Failed, "the program does not find itself, to compile components").because(&error))?;
    let compiled = compiled_directory(&arguments.dir);
    let cores = thread::available_parallelism().ok().and_then(|cores| NonZeroU32::try_from(cores).ok());
    Ok(Settings {
        directory: arguments.dir.clone(),
        listen: arguments.listen,
        tls: arguments.tls_cert.clone().zip(arguments.tls_key.clone()),
        is_behind_proxy: arguments.behind_proxy,
        files: arguments.files.clone(),
        isolation: isolated(arguments, &program)?,
        instances: arguments.instances,
        compiler: compile::Settings {
            program,
            arguments: vec!["compile-component".into(), "--compiled".into(), compiled.into()],
            memory_bytes: arguments.compile_memory << 20,
            cpu: Duration::from_secs(arguments.compile_cpu),
        },
        strangers: if arguments.hosted { Strangers::All } else { Strangers::Others },
        egress: arguments.egress.settings(if arguments.hosted { Mode::Public } else { Mode::Open })?,
        registries: arguments.registry.iter().map(|url| Registry::parse(url)).collect::<Result<_, _>>()?,
        parallelism: cores.unwrap_or(NonZeroU32::MIN),
        data: data.clone(),
        connectors: connectors(),
        logs,
        hidden: terminal::HIDDEN.clone(),
        crash: crash_points()?,
    })
}

fn isolated(arguments: &Arguments, program: &Path) -> Result<Isolated, Failure> {
    if arguments.isolation == Isolation::None {
        return Ok(Isolated::None);
    }
    let starter = Starter::new(program.to_owned(), vec!["runner".into()])
        .map_err(|error| Failure::new(Exit::Failed, "the thread that starts runners cannot be started").because(&error))?;
    let refused = millstream_sandbox::offered().refused();
    if !refused.is_empty() {
        terminal::note(&format!("runners have fewer walls on this machine than they should: {}", refused.join("; ")));
    }
    Ok(Isolated::Process(starter))
}

fn say(arguments: &Arguments, server: &Server) {
    let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", server.address());
    if arguments.json {
        terminal::print(&serde_json::json!({ "url": url, "token": server.first_token() }).to_string());
        return;
    }
    terminal::note(&format!("{STRONG}{url}{STRONG:#}, in {}", arguments.dir.display()));
    if let Some(token) = server.first_token() {
        terminal::note(&format!(
            "a token with the scopes admin and host, shown this once:\n  {token}\n  millstream login {url} --token {token}"
        ));
    } else if std::io::stderr().is_terminal() {
        terminal::note("stop it with Ctrl-C");
    }
}

/// Compiles one component and says what it is: the child of the service.
#[derive(clap::Args)]
pub struct CompileArguments {
    /// Where native code goes.
    #[arg(long, value_name = "DIR")]
    compiled: PathBuf,
    /// The component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn compile_component(arguments: &CompileArguments) -> Result<Exit, Failure> {
    // Before the first thread, and before anything of the component is looked at.
    let walls = Setup::walls_of_compiler(&arguments.file, &arguments.compiled);
    millstream_sandbox::enter(&walls).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let answer = machine::block_on(async { Ok::<_, Failure>(compiled(arguments).await) })?;
    match answer {
        Ok(report) => {
            terminal::print(&serde_json::to_string(&report).expect("a report has string keys only"));
            Ok(Exit::Done)
        }
        Err(failure) => {
            terminal::print(&serde_json::json!({ "problems": failure.problems }).to_string());
            Ok(Exit::Invalid)
        }
    }
}

async fn compiled(arguments: &CompileArguments) -> Result<Report, failure::Failure> {
    let failed = |error: millstream_wasm::Error| failure::Failure::from_error(error.kind(), &error);
    let settings = RuntimeSettings {
        cache_dir: Some(arguments.compiled.clone()),
        pooled_instances: machine::INSTANCES_TO_PLAN,
        ..RuntimeSettings::default()
    };
    let bytes: Arc<[u8]> = std::fs::read(&arguments.file)
        .map_err(|error| failure::Failure::new(millstream_model::ErrorKind::Unavailable, "the component cannot be read").because(&error))?
        .into();
    let component = Runtime::new(settings).map_err(failed)?.load(bytes, "the component").await.map_err(failed)?;
    Report::of(&component).await.map_err(failed)
}
