//! `millstream completions`: what a shell needs to complete commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    args::Cli,
    report::{Exit, Failure},
    terminal,
};

/// Prints the completions of a shell.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream completions bash > ~/.local/share/bash-completion/completions/millstream
  millstream completions fish > ~/.config/fish/completions/millstream.fish")]
pub struct Arguments {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "millstream", &mut script);
    terminal::print(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
