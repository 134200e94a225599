//! Settings of a component, which may refer to secrets: what is *said* of them is written down, compared and shown; what is *given* to the component has
//! in it what the references stand for, and goes nowhere else. Who looks references up is outside of the engine ([`SettingsSource`]).

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

/// Knows what references in settings stand for.
#[async_trait]
pub trait SettingsSource: Send + Sync {
    /// `said` as the component gets it, with what its references stand for now.
    ///
    /// # Errors
    /// A reference stands for nothing; one clause, without any value.
    async fn given(&self, said: &Value) -> Result<Value, String>;
}

/// Settings without references: what is said is what is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsSaid;

#[async_trait]
impl SettingsSource for AsSaid {
    async fn given(&self, said: &Value) -> Result<Value, String> {
        Ok(said.clone())
    }
}

/// The settings of a planned component.
#[derive(Clone)]
pub(super) struct Settings {
    /// As they are written, with references.
    pub(super) said: Value,
    /// As the component gets them.
    pub(super) given: Value,
    pub(super) source: Arc<dyn SettingsSource>,
}

impl Settings {
    /// # Errors
    /// As [`SettingsSource::given`].
    pub(super) async fn new(said: Value, source: Arc<dyn SettingsSource>) -> Result<Self, String> {
        Ok(Self { given: source.given(&said).await?, said, source })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("said", &self.said).finish_non_exhaustive()
    }
}
