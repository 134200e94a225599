//! `${secret:NAME}` in the values of a job file of the service: looked up in the catalogue when the job is planned. References to the machine are refused.
//!
//! In the settings of operators that are components they stay references ([`stays`]): a running job writes down which settings it runs, and is given
//! others. There they are looked up when a version is planned ([`Secrets`]), at every start and every swap, and go to the component alone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use millstream_engine::operators::component::SettingsSource;
use millstream_model::ids::TenantId;
use serde_json::{Value, json};

use crate::{
    catalogue::{Store, objects::Secret},
    components,
    failure::Failure,
    references::{self, Hidden, Reference, References, Scheme, Unresolved},
};

/// Whether the references in the value to which these keys of a job file lead are left for [`Secrets`].
pub fn stays(path: &str) -> bool {
    let below = |text: &str| text.strip_prefix("operators.").and_then(|rest| Some(rest.split_once('.')?.1.to_owned()));
    below(path).is_some_and(|rest| rest.starts_with("component.settings.") || rest.starts_with("component.settings["))
}

/// What references in the settings of the components of one job stand for now.
pub struct Secrets {
    /// The catalogue.
    pub store: Store,
    /// Whose job.
    pub tenant: TenantId,
    /// Where it is kept out of what is said.
    pub hidden: Hidden,
    /// Which job that is there.
    pub whose: String,
    /// The references of the job file, whose mistakes are told with their places.
    pub of_file: References,
}

#[async_trait]
impl SettingsSource for Secrets {
    async fn given(&self, said: &Value) -> Result<Value, String> {
        // Below a key of its own, so that no setting is taken for a key of the job file.
        let found = of(&json!({ "settings": said }), &self.store, &self.tenant).await.map_err(|failure| failure.to_string())?;
        self.hidden.hide_also(&self.whose, &found);
        let untold = found.mistakes_but(|reference| self.of_file.is_mistake(reference));
        match untold.map(|mistake| mistake.message.clone()).reduce(|all, next| format!("{all}; {next}")) {
            Some(mistakes) => Err(mistakes),
            None => Ok(found.fill(said.clone())),
        }
    }
}

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
