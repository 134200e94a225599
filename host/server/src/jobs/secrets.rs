//! `${secret:NAME}` in the values of a job file of the service: looked up in the catalogue when the job is planned. References to the machine are refused.

use std::collections::BTreeMap;

use millstream_model::ids::TenantId;
use serde_json::Value;

use crate::{
    catalogue::{Store, objects::Secret},
    components,
    failure::Failure,
    references::{self, Reference, References, Scheme, Unresolved},
};

/// What a job file refers to.
///
/// # Errors
/// The catalogue does not answer. What is not there is told with the mistakes of the job file.
pub async fn of(document: &Value, store: &Store, tenant: &TenantId) -> Result<References, Failure> {
    let mut secrets = BTreeMap::new();
    for Reference { name, .. } in references::named(document).into_iter().filter(|reference| reference.scheme == Scheme::Secret) {
        if components::check(&name, "secret").is_ok()
            && let Some(found) = store.get::<Secret>(tenant, &name).await?
        {
            secrets.insert(name, found.object.value);
        }
    }
    Ok(References::resolve(document, |reference| match reference.scheme {
        Scheme::Secret => secrets.get(&reference.name).cloned().ok_or_else(|| unknown(&reference.name)),
        Scheme::Env | Scheme::File => Err(of_the_machine(reference)),
    }))
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
