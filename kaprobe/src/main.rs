//! Parses, plans, runs, exits.

fn main() {}
