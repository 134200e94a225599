//! Contexts: which services a person uses, and with which tokens. `millstream login` and `millstream context`.
//!
//! They are kept in `$XDG_CONFIG_HOME/millstream/contexts.json` (else `~/.config/…`), which is its owner's alone:
//! `{"current": "local", "contexts": {"local": {"url": "http://127.0.0.1:7070", "token": "ms_…", "ca": null}}}`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use millstream_server::api::Identity;
use millstream_storage::durable;
use serde::{Deserialize, Serialize};

use super::{Service, connection::Connection};
use crate::{
    report::{Exit, Failure},
    terminal::{self, GOOD, STRONG},
};

/// Keeps a service and a token, after asking whether they are good, and uses them from now on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream login http://127.0.0.1:7070 --token ms_…
  echo $TOKEN | millstream login https://streams.example.org --name production
  millstream context list")]
pub struct LoginArguments {
    /// The service.
    #[arg(value_name = "URL")]
    to: String,
    /// What the context is called.
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// The token [default: the first line of standard input].
    #[arg(long, value_name = "TOKEN", env = "MILLSTREAM_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A certificate (PEM) that the service is trusted by, besides those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists, chooses and forgets contexts.
#[derive(clap::Args)]
pub struct ContextArguments {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(clap::Subcommand)]
enum ContextCommand {
    /// Lists them; a star marks the one that is used.
    List,
    /// Uses another one from now on.
    Use {
        /// Its name.
        name: String,
    },
    /// Forgets one, with its token.
    Forget {
        /// Its name.
        name: String,
    },
}

/// A service and a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The service.
    pub url: String,
    /// The token.
    pub token: String,
    /// A certificate that it is trusted by.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used.
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those that are kept.
    pub fn read() -> Result<Self, Failure> {
        let Some(file) = file() else { return Ok(Self::default()) };
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Failure::new(Exit::Invalid, format!("`{}` is damaged", file.display())).because(&error).fix("remove it, and log in again")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::new(Exit::Failed, format!("`{}` cannot be read", file.display())).because(&error)),
        }
    }

    /// One by name, or the one that is used; none: nobody has logged in.
    pub fn chosen(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        match name.or(self.current.as_deref()) {
            None => Ok(None),
            Some(name) => self.contexts.get(name).map(Some).ok_or_else(|| no_context(name)),
        }
    }

    fn write(&self) -> Result<(), Failure> {
        let file = file()
            .ok_or_else(|| Failure::new(Exit::Failed, "this user has no home, so a login cannot be kept").fix("use --url and --token"))?;
        let mut text = serde_json::to_vec_pretty(self).expect("contexts have string keys only");
        text.push(b'\n');
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Exit::Failed, format!("`{}` cannot be written", file.display())).because(error)
        };
        // Made private before anything is in it.
        let directory = file.parent().expect("the file lies in a directory");
        durable::create_directory(directory).map_err(|error| failed(&error))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(|error| failed(&error))?;
        durable::write_file(&file, &text).map_err(|error| failed(&error))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(|error| failed(&error))
    }
}

fn no_context(name: &str) -> Failure {
    Failure::new(Exit::Invalid, format!("there is no context `{name}`"))
        .fix("`millstream context list` shows them; `millstream login` makes one")
}

fn file() -> Option<PathBuf> {
    let from = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|home| home.join(".config")))?;
    Some(configuration.join("millstream").join("contexts.json"))
}

pub fn login(arguments: LoginArguments) -> Result<Exit, Failure> {
    let token = match arguments.token {
        Some(token) => token,
        None => {
            let mut text = String::new();
            io::stdin().take(4 << 10).read_to_string(&mut text).map_err(|error| {
                Failure::new(Exit::Invalid, "the token cannot be read from standard input").because(&error).fix("say it with --token")
            })?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
    };
    let url = arguments.to.trim_end_matches('/').to_owned();
    let service = Service { url: Some(url.clone()), token: Some(token.clone()), ca: arguments.ca.clone(), ..Service::default() };
    let identity: Identity = Connection::open(&service)?.get("/v1/whoami")?;
    let mut contexts = Contexts::read()?;
    contexts.contexts.insert(arguments.name.clone(), Context { url: url.clone(), token, ca: arguments.ca });
    contexts.current = Some(arguments.name.clone());
    contexts.write()?;
    terminal::print(&if arguments.json {
        serde_json::to_string(&identity).expect("an identity has string keys only")
    } else {
        let scopes: Vec<String> = identity.scopes.iter().map(ToString::to_string).collect();
        format!("{GOOD}logged in{GOOD:#} to {STRONG}{url}{STRONG:#} as context `{}`, with the scopes {}", arguments.name, scopes.join(", "))
    });
    Ok(Exit::Done)
}

pub fn context(arguments: ContextArguments) -> Result<Exit, Failure> {
    let mut contexts = Contexts::read()?;
    match arguments.command {
        ContextCommand::List => {
            let row = |(name, context): (&String, &Context)| {
                let mark = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                [mark.to_owned(), name.clone(), context.url.clone()]
            };
            let rows: Vec<_> = contexts.contexts.iter().map(row).collect();
            terminal::print(&terminal::table(["", "NAME", "SERVICE"], &rows));
            return Ok(Exit::Done);
        }
        ContextCommand::Use { name } => {
            if !contexts.contexts.contains_key(&name) {
                return Err(no_context(&name));
            }
            contexts.current = Some(name);
        }
        ContextCommand::Forget { name } => {
            contexts.contexts.remove(&name).ok_or_else(|| no_context(&name))?;
            contexts.current = contexts.current.filter(|current| *current != name);
        }
    }
    contexts.write()?;
    Ok(Exit::Done)
}
