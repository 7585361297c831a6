//! `qapi completions` and `qapi man`: help for shells and for readers of manuals.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use clap_mangen::Man as Page;

use crate::cli::{Cli, Completions, Man};

/// Prints a script for a shell.
pub fn completions(args: &Completions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qapi", &mut script);
    print(&script)
}

/// Prints a manual page, or writes all of them.
pub fn man(args: &Man) -> Result<ExitCode> {
    let mut program = Cli::command();
    program.build();
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
        clap_mangen::generate_to(program, folder)
            .with_context(|| format!("cannot write into '{}'", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let command = match &args.command {
        None => program,
        Some(name) => {
            let Some(found) = program.find_subcommand(name) else {
                bail!("there is no command '{name}'")
            };
            found.clone()
        }
    };
    let mut page = Vec::new();
    Page::new(command).render(&mut page)?;
    print(&page)
}

fn print(bytes: &[u8]) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
