//! How things look: colors, characters, and the time zone.

use jiff::tz::TimeZone;
use ratatui::style::{Color, Modifier, Style};

use crate::model::time::WallTime;
use crate::text::histogram::Bars;

/// What the terminal can show.
#[derive(Clone, Debug)]
pub(in crate::top) struct Look {
    pub(in crate::top) colored: bool,
    pub(in crate::top) bars: Bars,
    pub(in crate::top) zone: TimeZone,
}

/// How good or bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Less important.
    Faint,
    Good,
    Warning,
    Bad,
}

impl Look {
    pub(super) fn style(&self, tone: Tone) -> Style {
        let color = |color| {
            if self.colored {
                Style::new().fg(color)
            } else {
                Style::new()
            }
        };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Faint => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => color(Color::Green),
            Tone::Warning => color(Color::Yellow),
            Tone::Bad => color(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// A time of day.
    pub(super) fn clock(&self, time: WallTime) -> String {
        let time = time.timestamp().to_zoned(self.zone.clone()).time();
        format!(
            "{:02}:{:02}:{:02}",
            time.hour(),
            time.minute(),
            time.second()
        )
    }

    /// A column of the height of each number, relative to the largest.
    pub(super) fn sparkline(&self, numbers: &[u64]) -> String {
        let levels: &[char; 8] = match self.bars {
            Bars::Unicode => &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Bars::Ascii => &['.', ':', '-', '=', '+', '*', '#', '@'],
        };
        let most = numbers.iter().copied().max().unwrap_or(0).max(1);
        let level = |number: u64| match number {
            0 => ' ',
            number => {
                let level = u128::from(number) * 8 / u128::from(most);
                levels[usize::try_from(level).unwrap_or(8).clamp(1, 8) - 1]
            }
        };
        numbers.iter().map(|number| level(*number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_is_relative_to_the_largest_number() {
        let look = |bars| Look {
            colored: false,
            bars,
            zone: TimeZone::UTC,
        };
        for (numbers, unicode, ascii) in [
            (&[][..], "", ""),
            (&[0, 0], "  ", "  "),
            (&[1], "█", "@"),
            (&[0, 1, 4, 8], " ▁▄█", " .=@"),
            (&[1, u64::MAX], "▁█", ".@"),
        ] {
            assert_eq!(look(Bars::Unicode).sparkline(numbers), unicode);
            assert_eq!(look(Bars::Ascii).sparkline(numbers), ascii);
        }
    }
}
