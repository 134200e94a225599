//! Measurements that need a process of their own: this program starts itself again, and the child prints its answer as JSON.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};

use crate::{disk, process, size};

/// The argument that makes this program a child.
pub const CHILD: &str = "--child";

/// Lets a child measure `what`, with the files in `directory`.
///
/// # Errors
/// It fails, or answers something else.
pub fn ask<T: DeserializeOwned>(what: &str, directory: &Path) -> anyhow::Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([CHILD, what]).arg(directory).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("starting a child")?;
    ensure!(output.status.success(), "measuring {what} in a child failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("what the child says about {what}"))
}

/// The child: measures `what` and prints the answer.
///
/// # Errors
/// The measurement fails.
pub async fn answer(what: &str, directory: &Path) -> anyhow::Result<()> {
    match what {
        "idle-jobs" => print(&process::idle_jobs(directory).await?),
        "ten-million-keys" => print(&disk::ten_million_keys(directory).await?),
        "large-state" => print(&size::large_state(directory).await?),
        _ => bail!("a child does not know how to measure {what}"),
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn print(answer: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}
