//! `${secret:NAME}` in the values of a job file of the service: looked up in the catalogue when the job is planned. References to the machine are refused.
//!
//! In the settings of operators that are components they stay references ([`stays`]): a running job writes down which settings it runs, and is given
//! others. There they are put in place when a version is planned, at every start and every swap (`workshop/secrets.rs`), and go to the component alone.

use std::collections::BTreeMap;

use millstream_model::{ErrorKind, ids::TenantId};
use serde_json::Value;

use super::{
    Jobs,
    prepare::{Asked, hidden_key},
};
use crate::{
    catalogue::{
        Expected, Store,
        objects::{Job, Secret},
    },
    components,
    failure::Failure,
    references::{self, Reference, References, Scheme, Unresolved},
    workshop::{Request, message::Confided},
};

/// Whether the references in the value to which these keys of a job file lead are left for who plans the component.
pub fn stays(path: &str) -> bool {
    let below = |text: &str| text.strip_prefix("operators.").and_then(|rest| Some(rest.split_once('.')?.1.to_owned()));
    below(path).is_some_and(|rest| rest.starts_with("component.settings.") || rest.starts_with("component.settings["))
}

/// The secrets that a job file names, with their values. One that is not there is left out.
///
/// # Errors
/// The catalogue does not answer.
pub async fn values(document: &Value, store: &Store, tenant: &TenantId) -> Result<BTreeMap<String, String>, Failure> {
    let mut secrets = BTreeMap::new();
    for Reference { name, .. } in references::named(document).into_iter().filter(|reference| reference.scheme == Scheme::Secret) {
        if components::check(&name, "secret").is_ok()
            && let Some(found) = store.get::<Secret>(tenant, &name).await?
        {
            secrets.insert(name, found.object.value);
        }
    }
    Ok(secrets)
}

/// What a job file refers to. What is not there is told with the mistakes of the job file.
pub fn of(document: &Value, secrets: &BTreeMap<String, String>) -> References {
    References::resolve(document, |reference| match reference.scheme {
        Scheme::Secret => secrets.get(&reference.name).cloned().ok_or_else(|| unknown(&reference.name)),
        Scheme::Env | Scheme::File => Err(of_the_machine(reference)),
    })
}

impl Jobs {
    /// A secret has another value: what is said of jobs that name it hides it from now on, and the workshop of the tenant, if there is one, gives it to their
    /// next attempts.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn secret_changed(&self, tenant: &TenantId, name: &str) -> Result<(), Failure> {
        // One after the other: what is told last is the newest.
        let _turn = self.workshops.telling.lock().await;
        let Some(Secret { value, .. }) = self.store.get::<Secret>(tenant, name).await?.map(|found| found.object) else { return Ok(()) };
        let Some(workshop) = self.workshops.existing(tenant).await else { return Ok(()) };
        let wanted = Reference { scheme: Scheme::Secret, name: name.to_owned() };
        for job in self.store.list::<Job>(tenant, None, usize::MAX).await? {
            if let Ok(document) = self.document(&Asked::of(job.object.current()))
                && references::named(&document).contains(&wanted)
            {
                let values = values(&document, &self.store, tenant).await?;
                self.hidden.hide_also(&hidden_key(tenant, &job.name), &of(&document, &values));
            }
        }
        // A workshop that is gone is told when the next one plans.
        drop(workshop.ask(Request::Secret { name: name.to_owned(), value: Confided(value) }).await);
        Ok(())
    }

    /// Deletes a secret that no job refers to.
    ///
    /// # Errors
    /// There is none, or the current version of a job names it: that job could not start again.
    pub async fn delete_secret(&self, tenant: &TenantId, name: &str) -> Result<(), Failure> {
        if self.store.get::<Secret>(tenant, name).await?.is_none() {
            return Err(
                Failure::new(ErrorKind::NotFound, format!("there is no secret `{name}`")).fix("`millstream secret list` lists them")
            );
        }
        let wanted = Reference { scheme: Scheme::Secret, name: name.to_owned() };
        for job in self.store.list::<Job>(tenant, None, usize::MAX).await? {
            let document = self.document(&Asked::of(job.object.current()));
            if document.is_ok_and(|document| references::named(&document).contains(&wanted)) {
                return Err(Failure::new(ErrorKind::Conflict, format!("secret `{name}` is in use: by job `{}`", job.name)).fix(
                    "give it another value, which needs no other job; or delete the job, or replace it by one that does not name it",
                ));
            }
        }
        self.store.remove::<Secret>(tenant, name, Expected::Any).await?;
        Ok(())
    }
}

fn unknown(name: &str) -> Unresolved {
    Unresolved { message: format!("there is no secret `{name}`, which the job file names"), fix: format!("millstream secret set {name}") }
}

fn of_the_machine(reference: &Reference) -> Unresolved {
    Unresolved {
        message: format!("`{reference}` is for local runs: jobs of the service see neither its environment nor its files"),
        fix: "use a secret: `millstream secret set NAME`, and `${secret:NAME}` in the job file".to_owned(),
    }
}
