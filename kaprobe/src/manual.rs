//! `kaprobe man` and `kaprobe completions`: pages and scripts made from the definitions of the
//! flags.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, roman};
use rustix::fs::{Mode, OFlags};

use crate::cli;
use crate::cli::guides::{Guide, guide};
use crate::sink::SinkError;
use crate::{output_file, version};

/// The date of the pages: they are the same whenever they are made.
const DATE: &str = "2026-11-30";

/// Everybody may read a page.
const PUBLIC: Mode = Mode::RUSR
    .union(Mode::WUSR)
    .union(Mode::RGRP)
    .union(Mode::ROTH);

/// Runs `kaprobe completions`: writes a script for a shell.
///
/// # Errors
/// If standard output can't be written.
pub fn completions(shell: Shell) -> Result<(), SinkError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(None), "kaprobe", &mut script);
    print(&script)
}

/// Runs `kaprobe man`: writes the page of `kaprobe`, or a page for each command to a folder.
///
/// # Errors
/// If a page can't be written.
pub fn man(folder: Option<&Path>) -> Result<()> {
    let pages = pages().context("cannot make the pages")?;
    let Some(folder) = folder else {
        let first = pages.first().map_or(&[][..], |(_, page)| page);
        return Ok(print(first)?);
    };
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    for (name, page) in pages {
        let path = folder.join(name);
        write(&path, &page).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn print(bytes: &[u8]) -> Result<(), SinkError> {
    let mut out = io::stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(SinkError::stdout)
}

/// Writes a file, in place of what it holds.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = output_file::open(path, OFlags::CREATE | OFlags::WRONLY, PUBLIC)?;
    file.set_len(0)?;
    file.write_all(bytes)
}

/// The name and the text of each page: that of `kaprobe` first.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = cli::command(None).disable_help_subcommand(true);
    // Only then it is known which flags have values.
    all.build();
    let all = all.mut_subcommands(|it| it.mut_args(whole));
    let mut pages = vec![("kaprobe.1".to_owned(), page(&all, None)?)];
    for command in all.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = command.get_name();
        let page = page(command, guide(name))?;
        pages.push((format!("kaprobe-{name}.1"), page));
    }
    Ok(pages)
}

/// A flag whose page has all of its help and its values, as one paragraph.
fn whole(arg: Arg) -> Arg {
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map_or(String::new(), ToString::to_string);
    let mut help = help.replace("\n\n", ". ");
    let is_listed = !arg.is_hide_possible_values_set();
    let values = arg.get_possible_values();
    if is_listed && !values.is_empty() {
        let values = values.iter().map(|it| match it.get_help() {
            Some(what) => format!("{} ({what})", it.get_name()),
            None => it.get_name().to_owned(),
        });
        let values: Vec<_> = values.collect();
        help.extend([" [possible values: ", &values.join(", "), "]"]);
    }
    let has_values = !values.is_empty();
    arg.hide_short_help(false)
        .hide_possible_values(has_values)
        .long_help(help)
}

/// A page: what clap knows of the command, and then what its guide says.
fn page(command: &Command, guide: Option<&Guide>) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .date(DATE)
        .source(format!("kaprobe {}", version::NUMBER))
        .manual("kaprobe");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(guide) = guide {
        put_guide(&mut rest, guide);
    }
    put_exit_codes(&mut rest);
    rest.to_writer(&mut page)?;
    Ok(page)
}

fn put_guide(page: &mut Roff, guide: &Guide) {
    if !guide.notes.is_empty() {
        page.control("SH", ["NOTES"]);
    }
    for (n, note) in guide.notes.iter().enumerate() {
        if n > 0 {
            page.control("PP", []);
        }
        page.text([roman(*note)]);
    }
    page.control("SH", ["EXAMPLES"]);
    for example in guide.examples {
        page.control("TP", []);
        page.text([bold(example.line)]);
        page.text([roman(example.what)]);
    }
}

fn put_exit_codes(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (code, what) in cli::guides::EXIT_CODES {
        page.control("TP", []);
        page.text([bold(*code)]);
        page.text([Inline::Roman((*what).to_owned())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a page, without the marks of troff.
    fn plain(page: &[u8]) -> String {
        let page = String::from_utf8_lossy(page);
        let marks = ["\\fB", "\\fI", "\\fR"];
        let page = marks
            .iter()
            .fold(page.into_owned(), |page, it| page.replace(it, ""));
        page.replace("\\-", "-")
            .replace("\\&", "")
            .replace("\\*(Aq", "'")
    }

    #[test]
    fn every_flag_is_in_its_page() -> io::Result<()> {
        let pages = pages()?;
        let command = cli::command(None);
        for command in command.get_subcommands() {
            let name = format!("kaprobe-{}.1", command.get_name());
            let page = pages.iter().find(|(it, _)| *it == name);
            let page = page.map(|(_, page)| plain(page)).unwrap_or_default();
            for flag in command.get_arguments().filter(|it| !it.is_hide_set()) {
                let long = flag.get_long().map(|it| format!("--{it}"));
                let short = flag.get_short().map(|it| format!("-{it}, "));
                for name in long.into_iter().chain(short) {
                    assert!(page.contains(&name), "no {name} in {page}");
                }
                let help = flag.get_help().map(ToString::to_string);
                let first = help.unwrap_or_default();
                assert!(page.contains(&first), "no {first:?} in {page}");
            }
            for heading in ["NAME", "SYNOPSIS", "EXAMPLES", "EXIT STATUS"] {
                assert!(page.contains(heading), "no {heading} in {page}");
            }
        }
        let (first, _) = &pages[0];
        assert_eq!(first, "kaprobe.1");
        assert_eq!(pages.len(), command.get_subcommands().count() + 1);
        Ok(())
    }

    /// What a text says does not become a request of troff.
    #[test]
    fn text_is_not_taken_for_troff() -> io::Result<()> {
        let hostile = ".so /etc/passwd\n'br\n\\fBbold\\fR \\(bu \\*(Aq -x";
        let arg = Arg::new("hostile").long("hostile").help(hostile);
        let command = Command::new("kaprobe").about(hostile).arg(arg);
        let page = page(&command, None)?;
        let page = String::from_utf8_lossy(&page);
        for line in page.lines() {
            assert!(!line.starts_with(".so"), "{page}");
            assert!(!line.starts_with("'br"), "{page}");
        }
        assert!(page.contains(r"\\fBbold\\fR"), "{page}");
        Ok(())
    }
}
