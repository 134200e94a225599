//! `millstream token` and `millstream secret`.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    time::Duration,
};

use millstream_server::api::{MadeToken, NewToken, Scope, SecretValue, SecretView, TokenView};
use reqwest::Method;
use serde_json::Value;

use super::{
    Service,
    connection::{Body, escaped},
};
use crate::{
    report::{Exit, Failure},
    terminal::{self, STRONG},
};

/// Makes, lists and revokes tokens of the service.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream token create ci --scope deploy --expires-in-days 30
  millstream token list
  millstream token revoke 9d5a7fab0374730f")]
pub struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(clap::Subcommand)]
enum TokenCommand {
    /// Makes a token; its secret is shown this once.
    Create {
        /// What it is for.
        label: String,
        /// What it allows: view, operate, deploy, admin, or host (tenants). Once for every scope.
        #[arg(long, value_name = "SCOPE", value_parser = scope, required = true)]
        scope: Vec<Scope>,
        /// For how many days it holds [default: until it is revoked].
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
        /// Another tenant, for which it is.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Lists tokens, without their secrets.
    List {
        /// Another tenant, whose they are.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Revokes a token: it is worth nothing from now on.
    Revoke {
        /// Its id.
        id: String,
        /// Another tenant, whose it is.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        service: Service,
    },
}

/// Sets, lists and deletes secrets, to which job files refer as ${secret:NAME}.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo -n hunter2 | millstream secret set database
  millstream secret list")]
pub struct SecretArguments {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(clap::Subcommand)]
enum SecretCommand {
    /// Sets a secret to what standard input holds. Jobs see it when they start next.
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        service: Service,
    },
    /// Lists the names.
    List {
        #[command(flatten)]
        service: Service,
    },
    /// Deletes a secret.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        service: Service,
    },
}

impl TokenArguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        let (TokenCommand::Create { service, .. } | TokenCommand::List { service, .. } | TokenCommand::Revoke { service, .. }) =
            &self.command;
        service.json
    }
}

impl SecretArguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        let (SecretCommand::Set { service, .. } | SecretCommand::List { service } | SecretCommand::Delete { service, .. }) = &self.command;
        service.json
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::ALL.into_iter().find(|scope| scope.to_string() == text).ok_or_else(|| "expected view, operate, deploy, admin or host".to_owned())
}

/// Where the tokens of a tenant are; none: of that of who asks.
fn path(tenant: Option<&str>) -> String {
    tenant.map_or_else(|| "/v1/tokens".to_owned(), |tenant| format!("/v1/tenants/{}/tokens", escaped(tenant)))
}

pub fn token(arguments: TokenArguments) -> Result<Exit, Failure> {
    match arguments.command {
        TokenCommand::Create { label, scope, expires_in_days, tenant, service } => {
            let expires_in_s = expires_in_days.map(|days| Duration::from_secs(u64::from(days) * 86_400).as_secs());
            let wanted = NewToken { label, scopes: scope.into_iter().collect::<BTreeSet<_>>(), expires_in_s };
            let made: MadeToken = service.connect()?.post(&path(tenant.as_deref()), &wanted)?;
            Ok(service.show(&made, |made| format!("{STRONG}{}{STRONG:#}\ntoken {}, shown this once", made.secret, made.token.id)))
        }
        TokenCommand::List { tenant, service } => {
            let found: Vec<TokenView> = service.connect()?.all(&path(tenant.as_deref()))?;
            let row = |token: &TokenView| {
                let scopes: Vec<String> = token.scopes.iter().map(ToString::to_string).collect();
                let until = match (token.revoked_ms, token.expires_ms) {
                    (Some(at), _) => format!("revoked {}", terminal::time(at)),
                    (None, Some(at)) => terminal::time(at),
                    (None, None) => "-".to_owned(),
                };
                [token.id.clone(), token.label.clone(), scopes.join(","), terminal::time(token.created_ms), until]
            };
            let rows: Vec<_> = found.iter().map(row).collect();
            Ok(service.show(&found, |_| terminal::table(["ID", "LABEL", "SCOPES", "MADE", "UNTIL"], &rows)))
        }
        TokenCommand::Revoke { id, tenant, service } => {
            let path = format!("{}/{}", path(tenant.as_deref()), escaped(&id));
            let token: TokenView = service.connect()?.ask(Method::DELETE, &path, Body::Nothing)?;
            Ok(service.show(&token, |token| format!("token {} revoked", token.id)))
        }
    }
}

pub fn secret(arguments: SecretArguments) -> Result<Exit, Failure> {
    match arguments.command {
        SecretCommand::Set { name, service } => {
            let mut value = String::new();
            io::stdin().take(1 << 20).read_to_string(&mut value).map_err(|error| {
                Failure::new(Exit::Invalid, "the secret cannot be read from standard input").because(&error).fix("it must be text")
            })?;
            let body = serde_json::to_value(SecretValue { value }).expect("a secret is text");
            let set: SecretView = service.connect()?.ask(Method::PUT, &format!("/v1/secrets/{}", escaped(&name)), Body::Json(&body))?;
            Ok(service.show(&set, |set| format!("secret `{}` set; jobs see it when they start next", set.name)))
        }
        SecretCommand::List { service } => {
            let found: Vec<SecretView> = service.connect()?.all("/v1/secrets")?;
            let rows: Vec<_> = found.iter().map(|secret| [secret.name.clone(), terminal::time(secret.updated_ms)]).collect();
            Ok(service.show(&found, |_| terminal::table(["NAME", "SET"], &rows)))
        }
        SecretCommand::Delete { name, service } => {
            let gone: Value = service.connect()?.ask(Method::DELETE, &format!("/v1/secrets/{}", escaped(&name)), Body::Nothing)?;
            Ok(service.show(&gone, |_| format!("secret `{name}` deleted")))
        }
    }
}
