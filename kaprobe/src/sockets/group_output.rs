//! Writes groups of sockets as text, JSON lines or CSV.

use std::io::{self, BufWriter, Write};

use crate::model::peer_group::PeerGroup;
use crate::sink::options::Format;
use crate::sink::{CsvLines, JsonLines};
use crate::sockets::group::{Members, SocketGroup, VERSION};
use crate::sockets::output::RowStyle;
use crate::text::cell::NOTHING;
use crate::text::columns::{Cells, Column, Hidden, Table};
use crate::text::units::{Ms, span};

/// A column and the function that makes its cell.
type GroupColumn = (Column, fn(&PeerGroup, &Members) -> String);

/// What names a group comes first, then what is wrong, then what its settings are.
#[rustfmt::skip] // One line per column.
const COLUMNS: [GroupColumn; 12] = [
    (Column::of_worth("COUNT", 10, Cells::Whole), |_, it| it.count.to_string()),
    (Column::of_worth("PROGRAM", 17, Cells::Names(12)), |key, it| key.program(&it.pids)),
    (Column::of_worth("RUNS-IN", 2, Cells::Names(10)), |key, _| key.workload.name().unwrap_or_else(|| NOTHING.to_owned())),
    (Column::of_worth("NETNS", 1, Cells::Names(10)), |key, _| key.netns().into_owned()),
    (Column::of_worth("TO", 18, Cells::Endpoints), |key, _| key.peers.to_string()),
    (Column::of_worth("OFF", 9, Cells::Whole), |_, it| it.off.to_string()),
    (Column::of_finding("UNUSED", 14), |_, it| it.unused_options.to_string()),
    (Column::of_worth("KEEPALIVE", 13, Cells::Names(14)), |_, it| keepalive(it)),
    (Column::of_worth("IDLE", 11, Cells::Whole), |_, it| idle(it)),
    (Column::of_finding("STALLED", 15), |_, it| it.stalled.to_string()),
    (Column::of_finding("ZOMBIES", 16), |_, it| it.zombies.to_string()),
    (Column::of_worth("DEAD-IN", 12, Cells::Whole), |_, it| it.dead_in_ms.map_or(NOTHING.to_owned(), |(soonest, _)| Ms(soonest).to_string())),
];

/// Writes groups. Returns the columns that the screen has no room for.
pub(super) fn write(
    out: impl Write,
    groups: &[(&PeerGroup, &Members)],
    style: RowStyle,
) -> io::Result<Hidden> {
    let mut out = BufWriter::new(out);
    let mut records = groups.iter().map(|(key, it)| it.record(key));
    match style.format {
        Format::Text => {
            let (text, hidden) = text(groups, style);
            out.write_all(text.as_bytes())?;
            out.flush()?;
            return Ok(hidden);
        }
        Format::Json => {
            let mut lines = JsonLines::versioned(out, VERSION);
            records.try_for_each(|it| lines.put(&it))?;
            lines.flush()?;
        }
        Format::Csv => {
            let mut lines = CsvLines::new(out, style.heading);
            lines.put_heading::<SocketGroup>()?;
            records.try_for_each(|it| lines.put(&it))?;
            lines.flush()?;
        }
    }
    Ok(Hidden::default())
}

/// The table of the groups, and the hidden columns.
fn text(groups: &[(&PeerGroup, &Members)], style: RowStyle) -> (String, Hidden) {
    let (columns, cells): (Vec<_>, Vec<_>) = COLUMNS.into_iter().unzip();
    let rows = groups
        .iter()
        .map(|(key, it)| cells.iter().map(|cell| cell(key, it)).collect());
    let rows: Vec<Vec<_>> = rows.collect();
    let all_cells = rows.iter().map(Vec::as_slice);
    let mut table = Table::new(columns, style.heading, all_cells, style.screen);
    let mut text = String::new();
    if style.heading {
        table.put_heading(&mut text);
    }
    for cells in &rows {
        table.put(&mut text, cells);
    }
    (text, table.hidden)
}

/// The settings of the connections with keepalive on, each as one value or a range.
fn keepalive(it: &Members) -> String {
    let times = it.time_ms.zip(it.intvl_ms).zip(it.probes);
    let mut cell = match times {
        Some(((time_ms, intvl_ms), probes)) => {
            let probes = match probes {
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least}..{most}"),
            };
            format!("{}/{}/{probes}", span(time_ms), span(intvl_ms))
        }
        None if it.on > 0 => "on".to_owned(),
        None if it.off == it.count => "off".to_owned(),
        None => NOTHING.to_owned(),
    };
    if let Some(user_timeout_ms) = it.user_timeout_ms {
        cell.extend([" ut ", &span(user_timeout_ms)]);
    }
    cell
}

/// The shortest idle time, the median and the longest.
fn idle(it: &Members) -> String {
    match it.idle_ms() {
        Some([least, median, most]) if least != most => {
            format!("{}/{}/{}", Ms(least), Ms(median), Ms(most))
        }
        Some([least, ..]) => Ms(least).to_string(),
        None => NOTHING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kaprobe_testkit::schema;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::sample::{golden, golden_rows};
    use crate::sockets::group::SocketGroups;
    use crate::text::columns::Screen;
    use crate::text::cut::Ellipsis;

    #[test]
    fn output_matches_the_golden_files() -> Result<(), String> {
        let mut groups = SocketGroups::new(432_000_000);
        for row in golden_rows()? {
            groups.add(&row);
        }
        let sorted = groups.sorted(None);
        let mut wrong = Vec::new();
        for (name, format, width) in [
            ("socket-groups.txt", Format::Text, None),
            ("socket-groups-80.txt", Format::Text, Some(80)),
            ("socket-groups-60.txt", Format::Text, Some(60)),
            ("socket-groups.json", Format::Json, None),
            ("socket-groups.csv", Format::Csv, None),
        ] {
            let ellipsis = Ellipsis::Unicode;
            let style = RowStyle {
                format,
                heading: true,
                screen: width.map(|width| Screen { width, ellipsis }),
            };
            let mut out = Vec::new();
            let hidden = write(&mut out, &sorted, style).map_err(|why| why.to_string())?;
            let mut text = String::from_utf8_lossy(&out).into_owned();
            if format == Format::Json {
                let schema = include_str!("../../../schema/kaprobe-socket-groups.schema.json");
                let validator = schema::validator(schema)?;
                for line in text.lines() {
                    schema::check(&validator, line)?;
                }
            }
            if let Some(width) = width {
                assert!(text.lines().all(|line| line.width() <= width), "{text}");
                text.extend([&hidden.note("-w").unwrap_or_default(), "\n"]);
                assert_eq!(hidden.findings, [""; 0], "a finding comes before facts");
            }
            wrong.extend(golden::check(name, &text).err());
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}
