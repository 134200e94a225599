//! What references in the settings of components stand for, in a workshop: values that were told with the recipe of a version, and with that of every version
//! that was swapped in since. The service looks them up anew for each, and tells when one of them changes; nobody asks back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use millstream_engine::operators::component::SettingsSource;
use serde_json::{Value, json};

use crate::{
    jobs::secrets,
    references::{Hidden, References},
};

/// The secrets of one job.
pub(super) struct Secrets {
    values: Mutex<BTreeMap<String, String>>,
    /// Where they are kept out of what is said.
    hidden: Hidden,
    /// Which job that is there.
    whose: String,
    /// The references of the job file, whose mistakes are told with their places.
    of_file: References,
}

impl Secrets {
    /// Those of the version that is planned.
    pub(super) fn new(values: BTreeMap<String, String>, hidden: Hidden, whose: String, of_file: References) -> Self {
        Self { values: Mutex::new(values), hidden, whose, of_file }
    }

    /// One has another value by now, if it is one of them.
    pub(super) fn change(&self, name: &str, value: &str) {
        if let Some(known) = self.values.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            value.clone_into(known);
        }
    }

    /// What they are now.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of a version that is about to be swapped in, too; where both name one, its value is what it is now.
    pub(super) fn learn(&self, values: &BTreeMap<String, String>) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).extend(values.clone());
    }
}

#[async_trait]
impl SettingsSource for Secrets {
    async fn given(&self, said: &Value) -> Result<Value, String> {
        let values = self.values();
        // Below a key of its own, so that no setting is taken for a key of the job file.
        let found = secrets::of(&json!({ "settings": said }), &values);
        self.hidden.hide_also(&self.whose, &found);
        let untold = found.mistakes_but(|reference| self.of_file.is_mistake(reference));
        match untold.map(|mistake| mistake.message.clone()).reduce(|all, next| format!("{all}; {next}")) {
            Some(mistakes) => Err(mistakes),
            None => Ok(found.fill(said.clone())),
        }
    }
}
