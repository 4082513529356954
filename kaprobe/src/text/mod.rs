//! Text for people: escaped, in units, in columns, wrapped, drawn.

pub mod cell;
pub mod columns;
pub mod cut;
pub mod digits;
pub mod escape;
pub mod histogram;
pub mod units;
pub mod wrap;
