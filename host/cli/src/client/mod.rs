//! The client of the service: the commands that speak to it over HTTP.
//!
//! [`contexts`] says which service and with which token, [`connection`] asks it, [`place`] tells job directories from jobs of the service; every other
//! module is one command. The bodies are the service's own types (`millstream_server::api`).

pub mod components;
pub mod connection;
pub mod contexts;
pub mod jobs;
pub mod place;
pub mod streams;
pub mod swap;
pub mod tenants;
pub mod tokens;
pub mod trial;

use std::path::PathBuf;

use serde::Serialize;

use self::connection::Connection;
use crate::{
    report::{Exit, Failure},
    terminal,
};

/// Which service is asked, and how its answer is shown.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Service {
    /// The context: a service and a token, as `millstream login` keeps them [default: the one that was chosen last].
    #[arg(long, value_name = "NAME", env = "MILLSTREAM_CONTEXT", help_heading = "Service")]
    pub context: Option<String>,
    /// The service, as http://127.0.0.1:7070; in place of a context.
    #[arg(long, value_name = "URL", env = "MILLSTREAM_URL", help_heading = "Service")]
    pub url: Option<String>,
    /// The token that goes with it.
    #[arg(long, value_name = "TOKEN", env = "MILLSTREAM_TOKEN", hide_env_values = true, help_heading = "Service")]
    pub token: Option<String>,
    /// A certificate (PEM) that the service is trusted by, besides those of the system.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CA", help_heading = "Service")]
    pub ca: Option<PathBuf>,
    /// Print JSON, as the service answers it.
    #[arg(long)]
    pub json: bool,
}

impl Service {
    /// A connection to it.
    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(self)
    }

    /// Shows an answer: as JSON, or in the words of `text`.
    pub fn show<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> Exit {
        terminal::print(&if self.json { serde_json::to_string(answer).expect("answers have string keys only") } else { text(answer) });
        Exit::Done
    }
}
