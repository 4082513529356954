//! Converts flags to outputs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::cli::args::OutputArgs;
use crate::exit;
use crate::sink::options::{Existing, Format, LogFile, Outputs, Rotation, ScreenFormat, TextStyle};
use crate::text::escape::Escaped;

/// The outputs from the flags. `existing` is what happens to a file that exists, and `screen`
/// the format on the screen, if the flags don't say.
///
/// # Errors
/// [`exit::Code::Usage`] if flags conflict, or if the file name is not valid.
pub fn outputs(
    args: &OutputArgs,
    existing: Existing,
    screen: ScreenFormat,
) -> Result<Outputs, exit::Error> {
    let file = args
        .output
        .as_deref()
        .map(|path| log_file(path, args, existing))
        .transpose()?;
    let screen = match (args.json, args.format, &file) {
        (true, Some(other), None) if other != ScreenFormat::Every(Format::Json) => {
            return Err(exit::Error::usage(
                "--json and --format disagree about the screen",
            ));
        }
        (true, ..) => ScreenFormat::Every(Format::Json),
        (false, Some(format), None) => format,
        (false, ..) => screen,
    };
    let text = TextStyle {
        time: args.time,
        wide: args.wide,
        heading: !args.no_header,
        color: args.color,
    };
    Ok(Outputs { screen, file, text })
}

fn log_file(path: &Path, args: &OutputArgs, existing: Existing) -> Result<LogFile, exit::Error> {
    let shown = Escaped::from_path(path);
    file_name(path, "--format and --json are for the screen")?;
    let named = by_extension(path);
    let given = match args.format {
        Some(format) => Some(format.every().ok_or_else(|| {
            exit::Error::usage(format!(
                "--output {shown}: a digest is for the screen, not for a file"
            ))
        })?),
        None => None,
    };
    // `.txt` and `.log` are names for any text.
    if let (Some(format), Some(named @ (Format::Json | Format::Csv))) = (given, named)
        && format != named
    {
        return Err(exit::Error::usage(format!(
            "--output {shown}: --format and the extension disagree"
        )));
    }
    let format = given.or(named).ok_or_else(|| {
        exit::Error::usage(format!(
            "--output {shown}: no format goes by that extension; use .jsonl, .json, .csv or .txt, or add --format"
        ))
    })?;
    Ok(LogFile {
        path: path.to_owned(),
        format,
        existing: if args.force {
            Existing::Overwrite
        } else {
            existing
        },
        rotation: Rotation::default(),
    })
}

/// Checks that --output names a file. `instead` is what is for standard output.
///
/// # Errors
/// [`exit::Code::Usage`], if it does not.
pub fn file_name(path: &Path, instead: &str) -> Result<(), exit::Error> {
    if path == Path::new("-") {
        return Err(exit::Error::usage(format!(
            "--output names a file; {instead}"
        )));
    }
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        let shown = Escaped::from_path(path);
        return Err(exit::Error::usage(format!(
            "--output {shown}: not the name of a file"
        )));
    }
    Ok(())
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "jsonl" | "json" | "ndjson" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "txt" | "log" => Some(Format::Text),
        _ => None,
    }
}
