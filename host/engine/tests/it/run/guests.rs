//! Components of the guests in `host/engine/guests`, built once per test run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};

use millstream_engine::{
    operators::component::{AsSaid, ComponentOperatorPlan, ComponentRequest},
    run::{NewComponent, NewVersion, SwapRequest},
};
use millstream_model::StreamType;
use millstream_wasm::{Component, Runtime, RuntimeSettings, encode};
use serde_json::Value;

static MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/Cargo.toml");
    let output =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--target", "wasm32-unknown-unknown", "--examples", "--manifest-path"]).arg(manifest);
    assert!(cargo.status().expect("cargo runs").success(), "the guests build");
    output.join("wasm32-unknown-unknown/release/examples")
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let settings = RuntimeSettings { pooled_instances: 64, ..RuntimeSettings::default() };
    Runtime::new(settings).expect("there are addresses for the instances")
});

/// A guest, compiled and loaded.
pub async fn component(name: &str) -> Component {
    new_component(name).await.component
}

/// A guest to be swapped in.
pub async fn new_component(name: &str) -> NewComponent {
    let bytes = bytes(name);
    let component = RUNTIME.load(bytes.clone().into(), name).await.expect("it loads");
    NewComponent { component, bytes: bytes.into() }
}

/// The component that a guest becomes.
pub fn bytes(name: &str) -> Vec<u8> {
    let module = std::fs::read(MODULES.join(format!("{name}.wasm"))).expect("it was built");
    encode::component(&module, &[], name).expect("it becomes a component").bytes
}

/// A swap of `operator` to the guest `name`.
pub async fn swap_to(operator: &str, name: &str) -> SwapRequest {
    SwapRequest::of(NewVersion { operator: operator.into(), component: Some(new_component(name).await), settings: None })
}

/// A guest planned for one input; `key`: the number of its key column.
pub async fn planned(name: &str, input: &StreamType, key: Option<usize>) -> ComponentOperatorPlan {
    let keys = key.map(|key| vec![vec![key]]);
    let request = ComponentRequest {
        operator: name.into(),
        settings: Value::Null,
        source: Arc::new(AsSaid),
        inputs: std::slice::from_ref(input),
        keys: keys.as_deref(),
        grant: None,
    };
    ComponentOperatorPlan::plan(component(name).await, request).await.expect("it plans")
}
