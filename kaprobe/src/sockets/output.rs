//! Rows as text, JSON lines and CSV, under the same names.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, BufWriter, Stdout, Write as _},
};

use super::row::{Row, Timer};
use crate::{
    plan::Format,
    sink::{Ms, endpoint, field_text, word},
    words::Word as _,
};

/// What stands where nothing is known.
const UNKNOWN: &str = "-";

/// Standard output, in one of the formats.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    format: Format,
    heading: bool,
}

impl Output {
    pub(super) fn new(format: Format, heading: bool) -> Self {
        Self {
            out: BufWriter::new(io::stdout()),
            format,
            heading,
        }
    }

    pub(super) fn head(&mut self) -> io::Result<()> {
        match self.format {
            _ if !self.heading => Ok(()),
            Format::Json => Ok(()),
            Format::Csv => writeln!(self.out, "{}", Row::NAMES.join(",")),
            Format::Text => self.cells(&HEADINGS.map(Cow::Borrowed)),
        }
    }

    pub(super) fn row(&mut self, row: &Row) -> io::Result<()> {
        match self.format {
            Format::Text => self.cells(&cells(row)),
            Format::Json => {
                serde_json::to_writer(&mut self.out, row)?;
                self.out.write_all(b"\n")
            }
            Format::Csv => {
                let mut fields = Vec::with_capacity(Row::NAMES.len());
                row.visit(|_, value| {
                    let mut text = String::new();
                    field_text(&mut text, value);
                    fields.push(text);
                });
                let mut line = csv::Writer::from_writer(&mut self.out);
                line.write_record(&fields).map_err(io::Error::from)?;
                line.flush()
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn cells(&mut self, cells: &[Cow<'_, str>; 11]) -> io::Result<()> {
        let mut line = String::with_capacity(160);
        for (cell, width) in cells.iter().zip(WIDTHS) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$} ");
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

const HEADINGS: [&str; 11] = [
    "STATE",
    "RECVQ",
    "SENDQ",
    "PID",
    "COMM",
    "LADDR:LPORT",
    "RADDR:RPORT",
    "TIMER",
    "KEEPALIVE",
    "IDLE",
    "DEAD-IN",
];
const WIDTHS: [usize; 11] = [11, 5, 5, 7, 12, 21, 21, 18, 30, 7, 0];

fn cells(row: &Row) -> [Cow<'_, str>; 11] {
    let ms = |ms: Option<u64>| ms.map_or(UNKNOWN.into(), |ms| Ms(ms).to_string().into());
    [
        row.state.word().into(),
        row.recvq.to_string().into(),
        row.sendq.to_string().into(),
        row.pid.map_or(UNKNOWN.into(), |pid| pid.to_string().into()),
        row.comm
            .as_ref()
            .map_or(UNKNOWN.into(), |comm| word(comm.as_str())),
        endpoint(Some(row.laddr), Some(row.lport)).into(),
        endpoint(Some(row.raddr), Some(row.rport)).into(),
        timer(row).into(),
        keepalive(row).into(),
        ms(row.idle_ms),
        ms(row.dead_in_ms),
    ]
}

/// As `netstat -o`: the timer, and how long it has; then retransmits and probes.
fn timer(row: &Row) -> String {
    match (row.timer, row.timer_ms) {
        (Timer::Off, _) | (_, None) => row.timer.word().to_owned(),
        (timer, Some(left)) => format!(
            "{} {} {}/{}",
            timer.word(),
            Ms(left),
            row.retransmits.unwrap_or(0),
            row.probes_out.unwrap_or(0)
        ),
    }
}

/// The settings in force; those that the socket has set itself carry a star.
fn keepalive(row: &Row) -> String {
    use crate::event::Origin;
    let star = |from: Option<Origin>| {
        if from == Some(Origin::Socket) {
            "*"
        } else {
            ""
        }
    };
    match row.keepalive {
        None => UNKNOWN.to_owned(),
        Some(false) => "off".to_owned(),
        Some(true) => {
            let mut text = format!(
                "{}{}/{}{}/{}{}",
                Ms(row.keepalive_time_ms.unwrap_or(0)),
                star(row.keepalive_time_from),
                Ms(row.keepalive_intvl_ms.unwrap_or(0)),
                star(row.keepalive_intvl_from),
                row.keepalive_probes.unwrap_or(0),
                star(row.keepalive_probes_from),
            );
            if let Some(timeout) = row.user_timeout_ms {
                // Writing to a String cannot fail.
                let _ = write!(text, " ut {}", Ms(timeout.into()));
            }
            text
        }
    }
}
