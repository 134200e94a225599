//! `--egress` and `--egress-allow`: where jobs may connect to, the same words for `run` and `serve`.

use millstream_egress::{self as egress, Mode, Policy, gate};

use crate::report::{Exit, Failure};

/// Where jobs may connect to.
#[derive(clap::Args)]
pub struct EgressArguments {
    /// Where jobs may connect to: open (everywhere), public (the internet, nothing of this machine and its networks) or listed (only what
    /// --egress-allow names) [default: open; of a hosted service public].
    #[arg(long, value_name = "MODE", value_parser = mode, env = "MILLSTREAM_EGRESS")]
    egress: Option<Mode>,
    /// Where jobs may connect to besides, as 10.1.2.0/24, 127.0.0.1:9092, broker.internal or broker.internal:9092; again for each.
    #[arg(long, value_name = "PLACE", env = "MILLSTREAM_EGRESS_ALLOW", value_delimiter = ',')]
    egress_allow: Vec<String>,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "open" => Ok(Mode::Open),
        "public" => Ok(Mode::Public),
        "listed" => Ok(Mode::Listed),
        _ => Err("expected open, public or listed".to_owned()),
    }
}

impl EgressArguments {
    /// As settings; `otherwise`: what holds where nothing is said.
    pub fn settings(&self, otherwise: Mode) -> Result<egress::Settings, Failure> {
        let settings = egress::Settings { mode: self.egress.unwrap_or(otherwise), allow: self.egress_allow.clone() };
        // Here, where it can be said what was written wrong.
        read(&settings).map(|_| settings)
    }

    /// From now on this process connects only there.
    pub fn close(&self) -> Result<(), Failure> {
        let policy = read(&self.settings(Mode::Open)?)?;
        gate::close(policy).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    }
}

fn read(settings: &egress::Settings) -> Result<Policy, Failure> {
    Policy::read(settings).map_err(|error| {
        Failure::new(Exit::Invalid, error.to_string())
            .fix("write it as 10.1.2.0/24, 127.0.0.1:9092, broker.internal or broker.internal:9092")
    })
}
