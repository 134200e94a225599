//! `millstream tenant`: who shares the service, and how much of it each may have.

use millstream_server::api::{AmountsView, NewTenant, Quotas, TenantSettings, TenantView, UsageView};
use reqwest::Method;
use serde_json::Value;

use super::{
    Service,
    connection::{Body, Connection, escaped},
};
use crate::{
    report::{Exit, Failure},
    terminal::{self, STRONG},
};

/// Makes, limits and deletes tenants of the service, and shows what they use.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream tenant create acme --jobs 20 --state-bytes 5GiB
  millstream token create first --scope admin --tenant acme
  millstream tenant set acme --requests-per-s none
  millstream tenant usage acme

It takes a token of the tenant `local` with the scope `host`: the first one of the service has it. `get` and `usage` without a name are of your own tenant.")]
pub struct TenantArguments {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(clap::Subcommand)]
enum TenantCommand {
    /// Makes a tenant. `millstream token create --tenant NAME` makes its first token.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        quotas: QuotaArguments,
        #[command(flatten)]
        service: Service,
    },
    /// Lists the tenants.
    List {
        #[command(flatten)]
        service: Service,
    },
    /// Shows a tenant: its limits, and what is in use.
    Get {
        /// Its name [default: the tenant of the token].
        name: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Gives a tenant other limits; those that are not said stay. They hold from now on.
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        quotas: QuotaArguments,
        #[command(flatten)]
        service: Service,
    },
    /// Shows what a tenant has used, by day.
    Usage {
        /// Its name [default: the tenant of the token].
        name: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Deletes a tenant with its tokens and secrets.
    Delete {
        /// Its name.
        name: String,
        /// Its jobs with their savepoints, and its components, go with it.
        #[arg(long)]
        with_contents: bool,
        #[command(flatten)]
        service: Service,
    },
}

/// Limits: a number, `none`, and of bytes also 512KiB, 64MiB, 5GiB.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Quotas")]
struct QuotaArguments {
    /// Share of CPU time where tenants compete for it [default: 100].
    #[arg(long, value_name = "N")]
    cpu_share: Option<u32>,
    /// Memory of all its jobs together [default: 4GiB].
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    memory_bytes: Option<Limit>,
    /// Checkpoints and savepoints [default: 10GiB].
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    state_bytes: Option<Limit>,
    /// Jobs, whether they run or not [default: 100].
    #[arg(long, value_name = "N", value_parser = amount)]
    jobs: Option<Limit>,
    /// Components [default: 1GiB].
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    component_bytes: Option<Limit>,
    /// What its jobs send to other machines within a day [default: 100GiB].
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    egress_bytes_per_day: Option<Limit>,
    /// Log lines of all its jobs together [default: 256KiB].
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    log_bytes_per_s: Option<Limit>,
    /// Requests per second [default: 100].
    #[arg(long, value_name = "N", value_parser = amount)]
    requests_per_s: Option<Limit>,
    /// Where its jobs may connect to beside what --egress of the service lets all: 10.1.2.0/24, 127.0.0.1:9092 or broker.internal:9092, several with
    /// commas; `none` takes all away. From the next start of its runner on.
    #[arg(long, value_name = "RULES", value_delimiter = ',')]
    egress_allow: Option<Vec<String>>,
}

/// A limit; none: as much as there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u64>);

fn amount(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return Err("expected a number, as 100 or 64MiB, or none".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number, as 100 or 64MiB, or none".to_owned())?;
    number.checked_mul(factor).map(|number| Limit(Some(number))).ok_or_else(|| "that is more than there can be".to_owned())
}

impl QuotaArguments {
    /// The settings, where those that are not said are `before`.
    fn over(self, before: TenantSettings) -> TenantSettings {
        let or = |said: Option<Limit>, before| said.map_or(before, |said| said.0);
        let TenantSettings { quotas: before, egress_allow } = before;
        let egress_allow = match self.egress_allow {
            Some(said) if said == ["none"] => Vec::new(),
            said => said.unwrap_or(egress_allow),
        };
        let quotas = Quotas {
            cpu_share: self.cpu_share.unwrap_or(before.cpu_share),
            memory_bytes: or(self.memory_bytes, before.memory_bytes),
            state_bytes: or(self.state_bytes, before.state_bytes),
            jobs: or(self.jobs, before.jobs),
            component_bytes: or(self.component_bytes, before.component_bytes),
            egress_bytes_per_day: or(self.egress_bytes_per_day, before.egress_bytes_per_day),
            log_bytes_per_s: or(self.log_bytes_per_s, before.log_bytes_per_s),
            requests_per_s: or(self.requests_per_s, before.requests_per_s),
        };
        TenantSettings { quotas, egress_allow }
    }
}

impl TenantArguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        match &self.command {
            TenantCommand::Create { service, .. }
            | TenantCommand::List { service }
            | TenantCommand::Get { service, .. }
            | TenantCommand::Set { service, .. }
            | TenantCommand::Usage { service, .. }
            | TenantCommand::Delete { service, .. } => service.json,
        }
    }
}

pub fn tenant(arguments: TenantArguments) -> Result<Exit, Failure> {
    match arguments.command {
        TenantCommand::Create { name, quotas, service } => {
            let settings = quotas.over(TenantSettings::default());
            let made: TenantView = service.connect()?.post("/v1/tenants", &NewTenant { name, settings })?;
            Ok(service.show(&made, |made| {
                format!("tenant {STRONG}{}{STRONG:#}\nmillstream token create LABEL --scope admin --tenant {}", made.name, made.name)
            }))
        }
        TenantCommand::List { service } => list(&service),
        TenantCommand::Get { name, service } => {
            let path = name.map_or_else(|| "/v1/tenant".to_owned(), |name| path(&name));
            let found: TenantView = service.connect()?.get(&path)?;
            Ok(service.show(&found, shown))
        }
        TenantCommand::Set { name, quotas, service } => {
            let connection = service.connect()?;
            let before: TenantView = connection.get(&path(&name))?;
            let settings = quotas.over(before.settings);
            let settings = serde_json::to_value(settings).expect("settings have string keys only");
            let found: TenantView = connection.ask(Method::PUT, &path(&name), Body::Json(&settings))?;
            Ok(service.show(&found, shown))
        }
        TenantCommand::Usage { name, service } => usage(&service.connect()?, name.as_deref(), &service),
        TenantCommand::Delete { name, with_contents, service } => {
            let query = if with_contents { "?contents=delete" } else { "" };
            let gone: Value = service.connect()?.ask(Method::DELETE, &format!("{}{query}", path(&name)), Body::Nothing)?;
            Ok(service.show(&gone, |_| format!("tenant `{name}` deleted")))
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/tenants/{}", escaped(name))
}

fn list(service: &Service) -> Result<Exit, Failure> {
    let found: Vec<TenantView> = service.connect()?.all("/v1/tenants")?;
    let row = |tenant: &TenantView| {
        let used = &tenant.in_use;
        [
            tenant.name.clone(),
            used.jobs.to_string(),
            terminal::size(used.component_bytes),
            terminal::size(used.state_bytes),
            terminal::time(tenant.created_ms),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    Ok(service.show(&found, |_| terminal::table(["TENANT", "JOBS", "COMPONENTS", "STATE", "MADE"], &rows)))
}

/// How an amount is written.
type Shown = fn(u64) -> String;

fn shown(tenant: &TenantView) -> String {
    let (quotas, used) = (&tenant.settings.quotas, &tenant.in_use);
    let limit = |limit: Option<u64>, shown: Shown| limit.map_or_else(|| "none".to_owned(), shown);
    let (size, number): (Shown, Shown) = (terminal::size, |number| number.to_string());
    let rows = [
        ["cpu-share".to_owned(), String::new(), quotas.cpu_share.to_string()],
        ["memory-bytes".to_owned(), size(used.memory_bytes), limit(quotas.memory_bytes, size)],
        ["state-bytes".to_owned(), size(used.state_bytes), limit(quotas.state_bytes, size)],
        ["jobs".to_owned(), number(used.jobs), limit(quotas.jobs, number)],
        ["component-bytes".to_owned(), size(used.component_bytes), limit(quotas.component_bytes, size)],
        ["egress-bytes-per-day".to_owned(), String::new(), limit(quotas.egress_bytes_per_day, size)],
        ["egress-allow".to_owned(), String::new(), tenant.settings.egress_allow.join(", ")],
        ["log-bytes-per-s".to_owned(), String::new(), limit(quotas.log_bytes_per_s, size)],
        ["requests-per-s".to_owned(), String::new(), limit(quotas.requests_per_s, number)],
    ];
    format!("tenant {STRONG}{}{STRONG:#}\n{}", tenant.name, terminal::table(["QUOTA", "USED", "LIMIT"], &rows))
}

fn usage(connection: &Connection, name: Option<&str>, service: &Service) -> Result<Exit, Failure> {
    let path = name.map_or_else(|| "/v1/usage".to_owned(), |name| format!("{}/usage", path(name)));
    let found: UsageView = connection.get(&path)?;
    let row = |day: &str, used: &AmountsView| {
        [
            day.to_owned(),
            format!("{:.1}", used.cpu_seconds),
            gib(used.memory_byte_hours),
            gib(used.state_byte_hours),
            used.rows_in.to_string(),
            used.rows_out.to_string(),
            terminal::size(used.egress_bytes),
        ]
    };
    let mut rows: Vec<_> = found.days.iter().map(|day| row(&day.day, &day.used)).collect();
    rows.push(row("all", &found.total));
    let heads = ["DAY", "CPU s", "MEMORY GiB h", "STATE GiB h", "ROWS IN", "ROWS OUT", "EGRESS"];
    Ok(service.show(&found, |_| terminal::table(heads, &rows)))
}

fn gib(byte_hours: f64) -> String {
    format!("{:.3}", byte_hours / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_sizes_or_none() {
        assert_eq!(amount("12"), Ok(Limit(Some(12))));
        assert_eq!(amount("64MiB"), Ok(Limit(Some(64 << 20))));
        assert_eq!(amount("none"), Ok(Limit(None)));
        for bad in ["", "MiB", "1.5GiB", "-1", "1 GiB", "99999999999TiB", "é"] {
            assert!(amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_that_is_not_said_stays_as_it_is() {
        let quotas = Quotas { jobs: Some(7), ..Quotas::default() };
        let before = TenantSettings { quotas: quotas.clone(), egress_allow: vec!["10.0.0.0/8".to_owned()] };
        let said = QuotaArguments { state_bytes: Some(Limit(None)), ..QuotaArguments::default() };
        let expected = TenantSettings { quotas: Quotas { state_bytes: None, ..quotas.clone() }, ..before.clone() };
        assert_eq!(said.over(before.clone()), expected);
        let none = QuotaArguments { egress_allow: Some(vec!["none".to_owned()]), ..QuotaArguments::default() };
        assert_eq!(none.over(before), TenantSettings { quotas, egress_allow: Vec::new() });
    }
}
